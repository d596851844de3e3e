/// Names compared code point by code point.
///
/// Swift's `String ==` takes canonically equivalent texts for equal: `é` and `e` + U+0301 would be
/// one tensor, one key of an object, one metadata field. The contract says that they are two.

/// A text that equals another only when their UTF-8 bytes do.
public struct ExactName: Hashable, Sendable, Comparable, ExpressibleByStringLiteral,
    CustomStringConvertible
{
    public let text: String

    public init(_ text: String) {
        self.text = text
    }

    public init(stringLiteral text: String) {
        self.text = text
    }

    public var description: String { text }

    public static func == (left: ExactName, right: ExactName) -> Bool {
        left.text.utf8.elementsEqual(right.text.utf8)
    }

    public static func < (left: ExactName, right: ExactName) -> Bool {
        left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
    }

    public func hash(into hasher: inout Hasher) {
        for byte in text.utf8 {
            hasher.combine(byte)
        }
    }
}

extension String {
    /// Equality by code points, where `==` would fold canonical equivalents.
    func isExactly(_ other: String) -> Bool {
        utf8.elementsEqual(other.utf8)
    }
}
