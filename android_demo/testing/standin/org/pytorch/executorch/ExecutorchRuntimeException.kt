package org.pytorch.executorch

/** An error of the runtime, with its number. */
open class ExecutorchRuntimeException(val errorCode: Int, details: String?) :
    RuntimeException("[ExecuTorch Error 0x${Integer.toHexString(errorCode)}] ${details ?: "No details provided"}")
