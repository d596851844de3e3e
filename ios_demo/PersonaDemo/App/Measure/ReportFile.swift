// The report as a file that the share sheet takes.

import CoreTransferable
import UniformTypeIdentifiers

struct ReportFile: Transferable {
    static let name = "persona-measurements.json"
    private let data: Data

    init(_ data: Data) {
        self.data = data
    }

    static var transferRepresentation: some TransferRepresentation {
        DataRepresentation(exportedContentType: .json) { (file: ReportFile) in file.data }
            .suggestedFileName(name)
    }
}
