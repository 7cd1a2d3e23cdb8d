import Foundation

/// Where the labels of boxes go: inside the view, near their box, and off each other where there is room.
enum LabelLayout {
    /// Places one label for each box, in order: above the box, inside its top, inside its bottom, or below it, at the
    /// first of these that no earlier label takes. Where all are taken it is the first, over another label.
    ///
    /// `boxes` and `sizes`, one for each box, are in points, as is the result; boxes may reach beyond the view. A label
    /// that is larger than the view becomes as large as the view.
    static func place(boxes: [CGRect], sizes: [CGSize], view: CGSize) -> [CGRect] {
        var placed: [CGRect] = []
        for (box, size) in zip(boxes, sizes) {
            let width = min(size.width, view.width)
            let height = min(size.height, view.height)
            let left = min(max(box.minX, 0), view.width - width)
            let candidates = [box.minY - height, box.minY, box.maxY - height, box.maxY].map { top in
                CGRect(x: left, y: min(max(top, 0), view.height - height), width: width, height: height)
            }
            let free = candidates.first { candidate in !placed.contains { overlap($0, candidate) } }
            placed.append(free ?? candidates[0])
        }
        return placed
    }

    /// Whether the two share an area; touching is not enough.
    private static func overlap(_ one: CGRect, _ other: CGRect) -> Bool {
        one.minX < other.maxX && other.minX < one.maxX && one.minY < other.maxY && other.minY < one.maxY
    }
}
