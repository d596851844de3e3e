import Foundation
import Testing

@testable import PersonaKit

struct BundleConformanceTests {
    private func cases(_ name: String) throws -> [JSONValue] {
        try Corpus.json("bundles/cases.json").list(name)
    }

    @Test func everyManifestGetsTheVerdictOfTheCorpus() throws {
        let keys = try Corpus.keys("bundles")
        for one in try cases("manifests") {
            let data = try Corpus.data(one.text("manifest"))
            let signature = Signature(keyID: one.text("key_id"), base64: one.text("signature"))
            let found = try verdict {
                _ = try Manifest(verifying: data, signature: signature, keys: keys)
            }
            #expect(found == one.text("verdict"), "\(one.text("name"))")
        }
    }

    @Test func everyStoredSignatureGetsTheVerdictOfTheCorpusPinnedAndUnpinned() throws {
        let keys = try Corpus.keys("bundles")
        let manifest = try Corpus.data("bundles/complete/manifest.json")
        for one in try cases("signatures") {
            let signature = try Corpus.data(one.text("signature"))
            for (trust, wanted) in [(keys, one.text("pinned")), (nil, one.text("unpinned"))] {
                let found = try verdict {
                    _ = try ModelBundle.verifySigned(
                        manifest: manifest, signature: signature, trusting: trust
                    )
                }
                #expect(found == wanted, "\(one.text("name"))")
            }
        }
    }

    @Test func everySetOfFilesGetsTheVerdictOfTheCorpus() throws {
        let manifest = try Corpus.complete()
        for one in try cases("files") {
            var found: [ExactName: BundleFile] = [:]
            guard case .object(let members)? = one["found"] else { fatalError() }
            for member in members {
                found[member.key] = BundleFile(
                    size: Int(member.value.number("size").whole!),
                    sha256: member.value.text("sha256")
                )
            }
            let verdict = try verdict { try ModelBundle.check(manifest.files, found: found) }
            #expect(verdict == one.text("verdict"), "\(one.text("name"))")
        }
    }

    @Test func everyTensorFileGetsTheVerdictOfTheCorpus() throws {
        let manifest = try Corpus.complete()
        for one in try cases("tensors") {
            let data = try Corpus.data(one.text("file"))
            let observation = try one["observation"].map {
                try ObservationSpec(JSONField(value: $0, path: "observation"))
            }
            let spec = observation ?? manifest.observation
            let found = try verdict {
                switch one.text("kind") {
                case "base":
                    _ = try readBase(data, slots: manifest.slots)
                case "prototypes":
                    _ = try readPrototypes(
                        data, slots: manifest.slots, count: manifest.prototypeCount,
                        width: spec.width
                    )
                default:
                    _ = try readGolden(
                        data, slots: manifest.slots, inputs: manifest.inputs,
                        output: manifest.outputs[0], observation: spec,
                        prototypeCount: manifest.prototypeCount
                    )
                }
            }
            #expect(found == one.text("verdict"), "\(one.text("name"))")
        }
    }

    @Test func everyHeadIsPatchedByteForByte() throws {
        let program = try Corpus.complete().programs[0]
        for one in try cases("patches") {
            let feeds = try JSONField(value: one["feeds"]!, path: "feeds").read(Feed.init)
            let patched = program.with(feeds: feeds).patchedHead(
                try Corpus.data(one.text("before")),
                effective: try Corpus.floats(one.text("values"))
            )
            let after = try Corpus.data(one.text("after"))
            #expect(patched == after, "\(one.text("name"))")
        }
    }

    @Test func theCompleteBundleOpensAndEveryChangedByteOfItIsFound() throws {
        let place = try TemporaryFolder()
        let folder = place.url.appending(path: "bundle")
        try FileManager.default.copyItem(
            at: Corpus.folder.appending(path: "bundles/complete"), to: folder
        )
        let keys = try Corpus.keys("bundles")
        let bundle = try ModelBundle.open(at: folder, trusting: keys)
        #expect(bundle.signer == .pinned)
        #expect(try ModelBundle.open(at: folder, trusting: nil).signer == .enclosed)
        for (path, _) in bundle.manifest.files {
            let file = folder.appending(path: path)
            let sound = try Data(contentsOf: file)
            var changed = sound
            changed[changed.count / 2] ^= 1
            try changed.write(to: file)
            let found = try verdict { _ = try ModelBundle.open(at: folder, trusting: keys) }
            #expect(found == "bundle.file_changed", "\(path)")
            try sound.write(to: file)
        }
    }
}

extension Program {
    func with(feeds: [Feed]) -> Program {
        Program(
            target: target, precision: precision, path: path, method: method,
            observePath: observePath, observeMethod: observeMethod, feeds: feeds,
            tolerance: tolerance, verified: verified, delegation: delegation, head: head,
            slotFeed: slotFeed
        )
    }
}

/// A folder that goes when the test does.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "persona-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit {
        try? FileManager.default.removeItem(at: url)
    }
}
