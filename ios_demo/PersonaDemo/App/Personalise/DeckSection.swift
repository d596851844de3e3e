// Items as cards: opened ones become the history, the rest is what the model ranks.

import PersonaDemoLogic
import SwiftUI

struct DeckSection: View {
    let model: PersonaliseModel
    let deck: ItemDeck
    let comparison: RankComparison?

    var body: some View {
        Section {
            if let item = deck.top {
                ItemCard(item: item) {
                    Task { await model.open(item) }
                } pass: {
                    model.pass()
                }
                .id(item)
            }
            if !deck.history.isEmpty {
                LabeledContent("Opened so far", value: deck.history.count, format: .number)
                Button("Clear the history", role: .destructive) {
                    Task { await model.clearSamples() }
                }
            }
        } header: {
            Text("Open or pass")
        } footer: {
            Text("Swipe right to open, left to pass. Only what you open is looked at.")
        }
        if let comparison {
            Section {
                ForEach(comparison.moves.prefix(10)) { move in
                    RankRow(move: move)
                        .swipeActions(edge: .leading) {
                            Button("Open") { Task { await model.open(move.item) } }
                                .tint(.accentColor)
                        }
                }
            } header: {
                Text("Ranked now, of \(comparison.moves.count)")
            }
        }
    }
}

private struct ItemCard: View {
    let item: Int64
    let open: @MainActor () -> Void
    let pass: @MainActor () -> Void
    @State private var offset = 0.0

    private static let threshold = 100.0

    var body: some View {
        VStack(spacing: 12) {
            Text("Item \(item)")
                .font(.title2.bold())
                .frame(maxWidth: .infinity, minHeight: 90)
                .background(.quaternary, in: RoundedRectangle(cornerRadius: 16))
                .offset(x: offset)
                .rotationEffect(.degrees(offset / 20))
                .gesture(swipe)
                .accessibilityAction(named: "Open", open)
                .accessibilityAction(named: "Pass", pass)
            HStack {
                Button("Pass", systemImage: "xmark", action: pass)
                Spacer()
                Button("Open", systemImage: "checkmark", action: open)
                    .accessibilityIdentifier("open-item")
            }
            .buttonStyle(.bordered)
        }
    }

    private var swipe: some Gesture {
        DragGesture()
            .onChanged { offset = $0.translation.width }
            .onEnded { drag in
                withAnimation { offset = 0 }
                if drag.translation.width > Self.threshold {
                    open()
                } else if drag.translation.width < -Self.threshold {
                    pass()
                }
            }
    }
}

private struct RankRow: View {
    let move: RankMove

    var body: some View {
        HStack {
            Text(move.after, format: .number)
                .font(.body.monospacedDigit().bold())
                .frame(minWidth: 28, alignment: .trailing)
            Text("Item \(move.item)")
            Spacer()
            if move.rise != 0 {
                Label(
                    abs(move.rise).formatted(),
                    systemImage: move.rise > 0 ? "arrow.up" : "arrow.down"
                )
                .foregroundStyle(move.rise > 0 ? .green : .secondary)
                .font(.footnote.monospacedDigit())
            }
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel(
            Text("Item \(move.item): place \(move.after), place \(move.before) by the base")
        )
    }
}
