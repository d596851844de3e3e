package dev.persona.device

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption

/** A place that cannot be written to, as on a full disk; the message says why and what to do. */
class StorageException(message: String, cause: Throwable) : Exception(message, cause)

/**
 * Files that are there whole or not at all, also after the process is killed or the power cut.
 * Open so that a test can stand between two writes.
 */
open class DurableFiles {
    /**
     * Replaces [file] by [data]: a reader sees the old bytes or the new, never a mixture. Only the
     * owner may read it.
     *
     * @throws StorageException where that cannot be; then the old bytes are still there
     */
    open fun write(file: File, data: ByteArray) {
        try {
            val temporary = writeTemporary(file, data)
            rename(temporary, file)
        } catch (e: IOException) {
            throw StorageException("cannot write $file: ${e.message}; free some space", e)
        }
    }

    /** Removes a file that nothing names any more; one that stays is swept away later. */
    open fun remove(file: File) {
        file.delete()
    }

    /** The bytes in a new file beside [file], on the disk. */
    protected open fun writeTemporary(file: File, data: ByteArray): File {
        val folder = file.parentFile.toPath()
        val temporary = Files.createTempFile(folder, ".${file.name}.", "").toFile()
        try {
            FileOutputStream(temporary).use {
                it.write(data)
                it.fd.sync()
            }
        } catch (e: IOException) {
            temporary.delete()
            throw e
        }
        return temporary
    }

    /** The moment at which the new bytes count. */
    protected open fun rename(temporary: File, file: File) {
        Files.move(
            temporary.toPath(),
            file.toPath(),
            StandardCopyOption.ATOMIC_MOVE,
            StandardCopyOption.REPLACE_EXISTING,
        )
        sync(file.parentFile)
    }

    /** Asks the disk to keep a folder's entries. A file system that has no such thing says so. */
    private fun sync(folder: File) {
        try {
            FileChannel.open(folder.toPath(), StandardOpenOption.READ).use { it.force(true) }
        } catch (_: IOException) {
            // The rename has happened; only its order with a power cut is not known here.
        }
    }
}
