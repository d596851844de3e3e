// Digits drawn with a finger: the pad, this phone's look, and every sample with both answers.

import PersonaDemoLogic
import SwiftUI

struct DigitsSection: View {
    @Bindable var model: PersonaliseModel
    let digits: [DigitSample]
    @State private var selected: DigitSample.ID?

    private var favourites: String {
        model.habits.favourites.map { $0.formatted() }.formatted()
    }

    var body: some View {
        Section {
            DigitPad { drawing in Task { await model.add(drawing) } }
            Button("Draw 20 digits for me") { Task { await model.fill(20) } }
                .accessibilityIdentifier("fill")
            if !digits.isEmpty {
                Button("Clear the window", role: .destructive) {
                    selected = nil
                    Task { await model.clearSamples() }
                }
            }
        } header: {
            Text("Draw a digit")
        } footer: {
            Text("The hand that draws for you writes mostly \(favourites).")
        }
        Section {
            LookControls(look: $model.look)
        } header: {
            Text("This phone’s camera")
        } footer: {
            Text("New drawings come turned, faint and noisy as this camera takes them.")
        }
        if !digits.isEmpty {
            Section {
                ScrollView(.horizontal) {
                    LazyHStack(spacing: 8) {
                        ForEach(digits.reversed()) { digit in
                            DigitCell(digit: digit, isSelected: digit.id == selected) {
                                selected = digit.id == selected ? nil : digit.id
                            }
                        }
                    }
                }
                .frame(minHeight: 96)
                if let digit = digits.first(where: { $0.id == selected }) {
                    DigitDetail(model: model, digit: digit)
                }
                if let tally = model.tally {
                    TallyRow(tally: tally)
                }
            } header: {
                Text("Window: \(digits.count) of at most \(model.maxCount)")
            } footer: {
                Text("Touch a digit to see its answers and to say what it is. That stays here.")
            }
        }
    }
}

private struct LookControls: View {
    @Binding var look: CameraLook

    var body: some View {
        LabeledContent("Turned by") {
            Slider(value: $look.degrees, in: -180...180, step: 5) { Text("Turned by") }
                .accessibilityValue(Text("\(Int(look.degrees)) degrees"))
        }
        LabeledContent("Contrast") {
            Slider(value: $look.contrast, in: 0.4...1.2) { Text("Contrast") }
        }
        LabeledContent("Noise") {
            Slider(value: $look.noise, in: 0...0.3) { Text("Noise") }
        }
    }
}

/// A digit with its two answers below: base, then what runs now.
private struct DigitCell: View {
    let digit: DigitSample
    let isSelected: Bool
    let select: @MainActor () -> Void

    var body: some View {
        Button(action: select) {
            VStack(spacing: 4) {
                PixelImage(pixels: digit.pixels, width: digit.frame.width)
                    .frame(width: 56, height: 56)
                    .overlay {
                        RoundedRectangle(cornerRadius: 6)
                            .stroke(isSelected ? Color.accentColor : .clear, lineWidth: 3)
                    }
                if let comparison = digit.comparison {
                    HStack(spacing: 4) {
                        Text(comparison.labelBefore, format: .number)
                            .foregroundStyle(.secondary)
                        Image(systemName: "arrow.right").imageScale(.small)
                        Text(comparison.labelAfter, format: .number).bold()
                    }
                    .font(.caption)
                }
            }
        }
        .buttonStyle(.plain)
        .accessibilityElement(children: .ignore)
        .accessibilityLabel(label)
        .accessibilityAddTraits(isSelected ? [.isButton, .isSelected] : .isButton)
    }

    private var label: Text {
        guard let comparison = digit.comparison else { return Text("Digit, not answered yet") }
        return Text(
            "Digit: the base says \(comparison.labelBefore), now it says \(comparison.labelAfter)"
        )
    }
}

private struct DigitDetail: View {
    @Bindable var model: PersonaliseModel
    let digit: DigitSample

    var body: some View {
        if let comparison = digit.comparison {
            ClassChart(comparison: comparison)
        }
        Picker("It is a", selection: $model[label: digit.id]) {
            Text("Unknown").tag(Int?.none)
            ForEach(0..<10) { label in
                Text(label, format: .number).tag(Int?.some(label))
            }
        }
    }
}

private struct TallyRow: View {
    let tally: Tally

    var body: some View {
        LabeledContent("Right, of \(tally.labelled)") {
            HStack(spacing: 6) {
                Text(tally.rightBefore, format: .number).foregroundStyle(.secondary)
                Image(systemName: "arrow.right").imageScale(.small)
                Text(tally.rightAfter, format: .number).bold()
            }
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel(
            Text(
                """
                Of \(tally.labelled) digits with a label the base gets \(tally.rightBefore) right, \
                now \(tally.rightAfter)
                """
            )
        )
        .accessibilityIdentifier("tally")
    }
}
