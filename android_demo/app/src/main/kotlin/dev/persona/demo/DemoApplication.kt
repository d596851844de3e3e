package dev.persona.demo

import android.app.Application
import android.os.Handler
import android.os.Looper
import dev.persona.demo.session.Session
import dev.persona.demo.session.Snapshot
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

/** Holds the session, which outlives every activity, and its one thread. */
class DemoApplication : Application() {
    private val main = Handler(Looper.getMainLooper())
    private val worker: ExecutorService = Executors.newSingleThreadExecutor { Thread(it, "persona") }
    private val listeners = LinkedHashSet<(Snapshot) -> Unit>()

    /** The session; started when the first activity comes. */
    val session: Session by lazy {
        Flavour.prepare(this)
        Session(AndroidPhone(this), worker, { snapshot -> main.post { listeners.forEach { it(snapshot) } } })
            .apply { start() }
    }

    /** Hears of every snapshot, on the main thread. */
    fun listen(listener: (Snapshot) -> Unit) {
        listeners += listener
        listener(session.snapshot)
    }

    fun leave(listener: (Snapshot) -> Unit) {
        listeners -= listener
    }
}
