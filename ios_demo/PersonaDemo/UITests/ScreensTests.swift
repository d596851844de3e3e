// The three screens as somebody with a finger, or with VoiceOver, goes through them. They need a
// bundle of a digit classifier in the app, see App/Embedded/README.md.

import XCTest

@MainActor
final class ScreensTests: XCTestCase {
    private var app: XCUIApplication!

    override func setUp() async throws {
        continueAfterFailure = false
        app = XCUIApplication()
        if ProcessInfo.processInfo.environment["PERSONA_TEST_APPEARANCE"] == "dark-largest-text" {
            XCUIDevice.shared.appearance = .dark
            app.launchArguments += [
                "-UIPreferredContentSizeCategoryName",
                "UICTContentSizeCategoryAccessibilityXXXL",
            ]
        } else {
            XCUIDevice.shared.appearance = .light
        }
        app.launch()
        XCTAssertTrue(app.tabBars.firstMatch.waitForExistence(timeout: 60), "no bundle in the app?")
    }

    func testDigitsFillTheWindowAndThePhoneChoosesAPrototype() throws {
        tap(app.buttons["fill"])
        XCTAssertTrue(found(app.descendants(matching: .any)["tally"]).waitForExistence(timeout: 30))
        tap(app.buttons["ask"])
        let running = app.descendants(matching: .any)["running"]
        let changed = NSPredicate(format: "label BEGINSWITH 'Prototype'")
        expectation(for: changed, evaluatedWith: running)
        waitForExpectations(timeout: 30)
        tap(app.buttons["roll-back"])
        expectation(for: NSPredicate(format: "label BEGINSWITH 'The base'"), evaluatedWith: running)
        waitForExpectations(timeout: 30)
    }

    func testAMeasurementGoesToItsEndAndIsKept() throws {
        app.tabBars.buttons["Measure"].tap()
        tap(app.buttons["measure"])
        XCTAssertTrue(app.buttons["stop"].waitForExistence(timeout: 10))
        XCTAssertTrue(app.buttons["measure"].waitForExistence(timeout: 300))
        XCTAssertTrue(found(app.buttons["history"]).exists)
    }

    func testEveryScreenPassesTheAccessibilityAudit() throws {
        for tab in ["Personalise", "Measure", "Inspect"] {
            app.tabBars.buttons[tab].tap()
            try app.performAccessibilityAudit()
        }
    }

    private func tap(_ element: XCUIElement) {
        found(element).tap()
    }

    /// Goes to the top of the screen, then down until the element is there.
    private func found(_ element: XCUIElement) -> XCUIElement {
        for _ in 0..<3 where !element.isShown { app.swipeDown(velocity: .fast) }
        for _ in 0..<10 where !element.isShown { app.swipeUp(velocity: .slow) }
        return element
    }
}

extension XCUIElement {
    @MainActor
    fileprivate var isShown: Bool { exists && isHittable }
}
