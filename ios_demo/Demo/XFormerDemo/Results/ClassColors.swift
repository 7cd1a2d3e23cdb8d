import XFormerCore

/// The colors of boxes: Okabe and Ito's, which people who see few colors can tell apart; each box has its label too.
enum ClassColors {
    private static let colors = [
        Rgb(red: 230, green: 159, blue: 0),
        Rgb(red: 86, green: 180, blue: 233),
        Rgb(red: 0, green: 158, blue: 115),
        Rgb(red: 240, green: 228, blue: 66),
        Rgb(red: 0, green: 114, blue: 178),
        Rgb(red: 213, green: 94, blue: 0),
        Rgb(red: 204, green: 121, blue: 167),
    ]

    /// The color of a class, an index from 0 on; classes that are seven apart share one.
    static func color(of index: Int) -> Rgb { colors[index % colors.count] }
}
