import SwiftUI
import XFormerCore

/// The warning about weights, the list of results, and the figures below a picture.
struct ResultPanel: View {
    let drawing: Drawing?
    let figures: String
    var notices: [String] = []

    var body: some View {
        ScrollView {
            VStack(alignment: .leading, spacing: 12) {
                ForEach(notices, id: \.self) { notice in
                    NoticeView(text: notice)
                }
                if let drawing {
                    ResultList(rows: ResultRows(drawing.prediction, palette: drawing.palette), hasBars: drawing.hasBars)
                }
                if !figures.isEmpty {
                    Text(verbatim: figures)
                        .font(.footnote)
                        .foregroundColor(.secondary)
                        .monospacedDigit()
                }
            }
            .frame(maxWidth: .infinity, alignment: .leading)
            .padding()
        }
    }
}

/// A warning.
struct NoticeView: View {
    let text: String

    var body: some View {
        Label {
            Text(verbatim: text)
        } icon: {
            Image(systemName: "exclamationmark.triangle.fill")
        }
        .font(.callout)
        .foregroundColor(Color("OnWarning"))
        .padding(10)
        .frame(maxWidth: .infinity, alignment: .leading)
        .background(Color("Warning"))
        .cornerRadius(8)
    }
}

/// One line for each result.
private struct ResultList: View {
    let rows: ResultRows
    let hasBars: Bool

    var body: some View {
        VStack(alignment: .leading, spacing: 8) {
            ForEach(Array(rows.rows.enumerated()), id: \.offset) { _, row in
                HStack {
                    if let color = row.color {
                        Rectangle()
                            .fill(Color(color))
                            .frame(width: 16, height: 16)
                    }
                    VStack(alignment: .leading, spacing: 2) {
                        Text(verbatim: row.text)
                        if hasBars {
                            ProgressView(value: min(max(row.share, 0), 1))
                        }
                    }
                }
                .accessibilityElement(children: .ignore)
                .accessibilityLabel(Text(verbatim: row.text))
            }
            if let others = rows.othersText {
                Text(verbatim: others)
            }
        }
    }
}

extension Drawing {
    fileprivate var hasBars: Bool {
        if case .classifications = prediction { true } else { false }
    }
}
