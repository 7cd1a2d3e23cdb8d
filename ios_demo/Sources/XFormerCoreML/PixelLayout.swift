#if canImport(CoreML)
import CoreGraphics
import Foundation

/// How the bytes of a stored picture become red, green and blue, where they can be taken as they are: integers of 8 or
/// 16 bits in RGB or grey, with or without alpha, and grey or palettes of 1, 2, 4 or 8 bits.
///
/// Nothing is converted: a color profile is ignored, as in training (docs/preprocessing.md, section 1). Alpha is
/// dropped without blending; where the colors are premultiplied, it is divided out again, which can't bring back the
/// bits that were lost.
struct PixelLayout: Equatable {
    /// What one pixel holds.
    enum Kind: Equatable {
        /// Places of red, green, blue and alpha among the pixel's samples. `alpha` is given where the others are
        /// premultiplied by it.
        case color(red: Int, green: Int, blue: Int, alpha: Int?)

        /// Place of the grey sample, and of alpha where it is premultiplied. `hasAlpha`: whether there is any alpha.
        case grey(Int, alpha: Int?, hasAlpha: Bool)

        /// An index into red, green, blue of each color.
        case palette([UInt8])
    }

    let kind: Kind

    /// 1, 2, 4, 8 or 16. Below 8, a pixel is one sample, and the first one is in a byte's highest bits.
    let bitsPerSample: Int

    /// Of a pixel; 0 where it has less than 8.
    let bytesPerPixel: Int

    /// Of samples with 16 bits.
    let isLittleEndian: Bool

    /// The layout of an image's bytes; nil where they can't be taken as they are.
    static func of(_ image: CGImage) -> PixelLayout? {
        guard let space = image.colorSpace, image.decode == nil, image.pixelFormatInfo == .packed,
            !image.bitmapInfo.contains(.floatComponents)
        else { return nil }
        let bits = image.bitsPerComponent
        let order = image.byteOrderInfo
        switch space.model {
        case .indexed where bits <= 8 && image.bitsPerPixel == bits && image.alphaInfo == .none:
            guard let base = space.baseColorSpace, base.model == .rgb, let table = space.colorTable else { return nil }
            return single(.palette(table), bits: bits)
        case .monochrome where bits < 8 && image.bitsPerPixel == bits && image.alphaInfo == .none:
            return single(.grey(0, alpha: nil, hasAlpha: false), bits: bits)
        case .monochrome, .rgb:
            return whole(image, colors: space.model == .rgb ? 3 : 1, bits: bits, order: order)
        default:
            return nil
        }
    }

    private static func single(_ kind: Kind, bits: Int) -> PixelLayout? {
        guard [1, 2, 4, 8].contains(bits) else { return nil }
        return PixelLayout(kind: kind, bitsPerSample: bits, bytesPerPixel: bits / 8, isLittleEndian: false)
    }

    /// Of samples that fill one or two bytes.
    private static func whole(_ image: CGImage, colors: Int, bits: Int, order: CGImageByteOrderInfo) -> PixelLayout? {
        guard bits == 8 || bits == 16 else { return nil }
        let samples = image.bitsPerPixel / bits
        let first: Int
        var alpha: Int?
        switch image.alphaInfo {
        case .none: first = 0
        case .noneSkipLast, .last: first = 0
        case .noneSkipFirst, .first: first = 1
        case .premultipliedLast: (first, alpha) = (0, colors)
        case .premultipliedFirst: (first, alpha) = (1, 0)
        default: return nil
        }
        guard image.bitsPerPixel == samples * bits, samples == colors + (image.alphaInfo == .none ? 0 : 1) else {
            return nil
        }
        var places = Array(first..<first + colors)
        switch (order, bits) {
        case (.orderDefault, _), (.order32Big, 8), (.order16Big, 16), (.order16Little, 16): break
        case (.order32Little, 8) where samples == 4:
            places = places.map { 3 - $0 }
            alpha = alpha.map { 3 - $0 }
        default: return nil
        }
        let kind: Kind =
            colors == 3
            ? .color(red: places[0], green: places[1], blue: places[2], alpha: alpha)
            : .grey(places[0], alpha: alpha, hasAlpha: samples > 1)
        return PixelLayout(
            kind: kind, bitsPerSample: bits, bytesPerPixel: samples * bits / 8, isLittleEndian: order == .order16Little)
    }

    /// The fewest bytes that a row of `width` pixels takes.
    func rowBytes(width: Int) -> Int {
        bytesPerPixel > 0 ? width * bytesPerPixel : (width * bitsPerSample + 7) / 8
    }

    /// Writes an upright row's red, green and blue to `into`.
    ///
    /// `bytes` is the stored picture, whose rows are `bytesPerRow` apart; row `y` of `turn` must be in it.
    func row(
        _ y: Int, of bytes: UnsafePointer<UInt8>, bytesPerRow: Int, turn: Turn,
        into: UnsafeMutableBufferPointer<UInt8>
    ) {
        if bytesPerPixel == 0 {
            smallRow(y, of: bytes, bytesPerRow: bytesPerRow, turn: turn, into: into)
            return
        }
        let path = turn.path(ofRow: y, bytesPerPixel: bytesPerPixel, bytesPerRow: bytesPerRow)
        switch (kind, bitsPerSample) {
        case (.color(let red, let green, let blue, nil), 8):
            var from = path.start
            for x in 0..<turn.width {
                into[3 * x] = bytes[from + red]
                into[3 * x + 1] = bytes[from + green]
                into[3 * x + 2] = bytes[from + blue]
                from += path.step
            }
        case (.color(let red, let green, let blue, let alpha), _):
            for x in 0..<turn.width {
                let from = path.start + x * path.step
                let over = alpha.map { sample($0, of: bytes, at: from) }
                into[3 * x] = narrow(divide(sample(red, of: bytes, at: from), by: over))
                into[3 * x + 1] = narrow(divide(sample(green, of: bytes, at: from), by: over))
                into[3 * x + 2] = narrow(divide(sample(blue, of: bytes, at: from), by: over))
            }
        case (.grey(let place, let alpha, let hasAlpha), _):
            for x in 0..<turn.width {
                let from = path.start + x * path.step
                let over = alpha.map { sample($0, of: bytes, at: from) }
                let value = divide(sample(place, of: bytes, at: from), by: over)
                fill(into, x, hasAlpha || bitsPerSample == 8 ? narrow(value) : UInt8((value * 255 + 32767) / 65535))
            }
        case (.palette(let table), _):
            for x in 0..<turn.width { look(up: Int(bytes[path.start + x * path.step]), in: table, into, x) }
        }
    }

    /// Of pixels with less than 8 bits.
    private func smallRow(
        _ y: Int, of bytes: UnsafePointer<UInt8>, bytesPerRow: Int, turn: Turn,
        into: UnsafeMutableBufferPointer<UInt8>
    ) {
        let most = (1 << bitsPerSample) - 1
        var place = turn.start(ofRow: y)
        for x in 0..<turn.width {
            let bit = place.x * bitsPerSample
            let value = (Int(bytes[place.y * bytesPerRow + bit / 8]) >> (8 - bitsPerSample - bit % 8)) & most
            if case .palette(let table) = kind {
                look(up: value, in: table, into, x)
            } else {
                fill(into, x, UInt8(value * 255 / most))
            }
            place.x += turn.step.x
            place.y += turn.step.y
        }
    }

    private func sample(_ place: Int, of bytes: UnsafePointer<UInt8>, at pixel: Int) -> Int {
        if bitsPerSample == 8 { return Int(bytes[pixel + place]) }
        let (first, second) = (Int(bytes[pixel + 2 * place]), Int(bytes[pixel + 2 * place + 1]))
        return isLittleEndian ? (second << 8) | first : (first << 8) | second
    }

    /// Takes a premultiplied sample apart; black where alpha is 0.
    private func divide(_ value: Int, by alpha: Int?) -> Int {
        guard let alpha else { return value }
        let most = (1 << bitsPerSample) - 1
        return alpha == 0 ? 0 : min((value * most + alpha / 2) / alpha, most)
    }

    /// The upper 8 bits, as Pillow takes them of 16-bit colors.
    private func narrow(_ value: Int) -> UInt8 { UInt8(bitsPerSample == 16 ? value >> 8 : value) }

    private func fill(_ into: UnsafeMutableBufferPointer<UInt8>, _ x: Int, _ grey: UInt8) {
        into[3 * x] = grey
        into[3 * x + 1] = grey
        into[3 * x + 2] = grey
    }

    /// An index beyond the palette is black, as decoders show it.
    private func look(up index: Int, in table: [UInt8], _ into: UnsafeMutableBufferPointer<UInt8>, _ x: Int) {
        let isThere = 3 * index + 2 < table.count
        for channel in 0..<3 { into[3 * x + channel] = isThere ? table[3 * index + channel] : 0 }
    }
}
#endif
