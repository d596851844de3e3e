package dev.persona.demo

import android.app.Activity
import android.os.Bundle
import android.util.Log
import android.view.WindowManager
import android.widget.TextView
import dev.persona.demo.session.Benchmark
import java.io.File
import java.util.concurrent.Executors

/**
 * A run without hands, for device farms, with the extras of ExecuTorch's minibench:
 *
 *     adb shell am start -n dev.persona.demo/.BenchmarkActivity --es model_dir DIR \
 *         --ei num_iter 200 --ei num_warm_up_iter 50 --es endpoint URL
 *
 * DIR is a bundle folder that the app can read; without it the app fetches the bundle of `endpoint`,
 * or takes the built-in one. Only the shell may start it. The result is
 * `files/benchmark_results.json`; `files/benchmark_error.txt` says why there is none.
 */
class BenchmarkActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val shown = TextView(this).apply { setText(R.string.benchmark_running) }
        setContentView(shown)
        if (savedInstanceState != null) return
        Flavour.prepare(this)
        val benchmark = Benchmark(
            AndroidPhone(applicationContext),
            bundle = intent.getStringExtra("model_dir")?.let { File(it) },
            endpoint = intent.getStringExtra("endpoint").orEmpty(),
            iterations = intent.getIntExtra("num_iter", Benchmark.ITERATIONS),
            warmUp = intent.getIntExtra("num_warm_up_iter", Benchmark.WARM_UP),
        )
        Executors.newSingleThreadExecutor().execute {
            val result = benchmark.run()
            Log.i(TAG, if (result.failed) "failed, see ${result.file}" else "done, see ${result.file}")
            runOnUiThread {
                val words = if (result.failed) R.string.benchmark_failed else R.string.benchmark_done
                shown.text = getString(words, result.file.path)
                finish()
            }
        }
    }

    private companion object {
        const val TAG = "PersonaBenchmark"
    }
}
