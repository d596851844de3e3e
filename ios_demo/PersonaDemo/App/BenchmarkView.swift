// A benchmark without anybody at the screen. It ends the app with 0 where all results are valid, 1
// where some are not or something failed, 2 where it was asked for in the wrong way.

import PersonaDemoLogic
import PersonaKit
import SwiftUI

struct BenchmarkView: View {
    let request: BenchmarkRequest

    var body: some View {
        ProgressView("Measuring…")
            .task { exit(await run()) }
    }

    private func run() async -> Int32 {
        UIApplication.shared.isIdleTimerDisabled = true
        do {
            let report = try await HeadlessBenchmark(request, platform: .phone).run()
            for line in report.lines { print(line) }
            return report.isGood ? 0 : 1
        } catch {
            print("benchmark failed: \(Failure(error).line)")
            return 1
        }
    }
}

struct MisuseView: View {
    let fault: UsageFault

    var body: some View {
        Text(verbatim: fault.localizedDescription)
            .task {
                print("benchmark not started: \(fault.localizedDescription)")
                exit(2)
            }
    }
}
