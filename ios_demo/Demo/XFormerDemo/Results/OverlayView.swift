import SwiftUI
import XFormerCore

/// Draws a result over the picture that lies below it: the best class, boxes with their labels, or a class map.
/// VoiceOver reads ``ResultText`` in its place.
struct OverlayView: View {
    let drawing: Drawing
    let mode: ScaleMode

    @Environment(\.legibilityWeight) private var legibilityWeight

    var body: some View {
        Canvas { context, size in
            guard size.width > 0, size.height > 0 else { return }
            let transform = ViewTransform(
                source: drawing.source, view: size, mode: mode, isMirrored: drawing.isMirrored)
            draw(in: context, size: size, transform: transform)
        }
        .accessibilityHidden(true)
        .allowsHitTesting(false)
    }

    private func draw(in context: GraphicsContext, size: CGSize, transform: ViewTransform) {
        switch drawing.prediction {
        case .classifications(let found):
            guard let best = found.first else { return }
            let text = Words.resultRow(best.label, share: Figures.percent(best.probability))
            drawLabels([text], at: [transform.picture], in: context, size: size)
        case .detections(let found):
            // The best is drawn last, above the others.
            for detection in found.reversed() {
                context.stroke(
                    Path(transform.map(detection.box)), with: .color(Color(ClassColors.color(of: detection.index))),
                    lineWidth: 3)
            }
            let texts = found.map { Words.resultRow($0.label, share: Figures.percent(Double($0.score))) }
            drawLabels(texts, at: found.map { transform.map($0.box) }, in: context, size: size)
        case .classMap:
            guard let map = drawing.classMap else { return }
            var flipped = context
            if drawing.isMirrored {
                flipped.translateBy(x: size.width, y: 0)
                flipped.scaleBy(x: -1, y: 1)
            }
            flipped.draw(Image(decorative: map, scale: 1), in: transform.picture)
        }
    }

    private func drawLabels(_ texts: [String], at boxes: [CGRect], in context: GraphicsContext, size: CGSize) {
        let weight: Font.Weight = legibilityWeight == .bold ? .bold : .semibold
        let labels = texts.map { text in
            context.resolve(Text(verbatim: text).font(.footnote.weight(weight)).foregroundColor(.white))
        }
        let room = CGSize(width: size.width - 8, height: size.height - 8)
        let sizes = labels.map { label in
            let taken = label.measure(in: room)
            return CGSize(width: taken.width + 8, height: taken.height + 8)
        }
        let places = LabelLayout.place(boxes: boxes, sizes: sizes, view: size)
        for (label, place) in zip(labels, places).reversed() {
            context.fill(Path(roundedRect: place, cornerRadius: 4), with: .color(.black.opacity(0.9)))
            context.draw(label, in: place.insetBy(dx: 4, dy: 4))
        }
    }
}

extension Color {
    /// A color of a result, in sRGB.
    init(_ color: Rgb) {
        self.init(
            .sRGB, red: Double(color.red) / 255, green: Double(color.green) / 255, blue: Double(color.blue) / 255,
            opacity: 1)
    }
}
