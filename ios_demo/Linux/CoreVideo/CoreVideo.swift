// A test double of Apple's Core Video: pixel buffers with padded rows. Names and types are those of the iOS 18 SDK.
// It is stricter than Apple's: an address is given only while the buffer is locked, and a lock that is not paired with
// an unlock of the same kind ends the test.

import CoreGraphics
import Foundation

@_exported import CoreGraphics

public typealias OSType = UInt32
public typealias CVReturn = Int32
public typealias CVOptionFlags = UInt64
public typealias CVImageBuffer = CVBuffer
public typealias CVPixelBuffer = CVImageBuffer

public let kCVReturnSuccess: CVReturn = 0
public let kCVReturnError: CVReturn = -6660
public let kCVReturnAllocationFailed: CVReturn = -6662
public let kCVReturnInvalidPixelFormat: CVReturn = -6680

public let kCVPixelFormatType_32BGRA: OSType = 0x4247_5241
public let kCVPixelFormatType_32ARGB: OSType = 0x0000_0020
public let kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange: OSType = 0x3432_3076
public let kCVPixelFormatType_420YpCbCr8BiPlanarFullRange: OSType = 0x3432_3066
public let kCVPixelFormatType_420YpCbCr10BiPlanarFullRange: OSType = 0x7866_3230

nonisolated(unsafe) public let kCVPixelBufferIOSurfacePropertiesKey: CFString = "IOSurfaceProperties"
nonisolated(unsafe) public let kCVPixelBufferPixelFormatTypeKey: CFString = "PixelFormatType"
nonisolated(unsafe) public let kCVImageBufferYCbCrMatrixKey: CFString = "CVImageBufferYCbCrMatrix"
nonisolated(unsafe) public let kCVImageBufferYCbCrMatrix_ITU_R_601_4: CFString = "ITU_R_601_4"
nonisolated(unsafe) public let kCVImageBufferYCbCrMatrix_ITU_R_709_2: CFString = "ITU_R_709_2"
nonisolated(unsafe) public let kCVImageBufferYCbCrMatrix_ITU_R_2020: CFString = "ITU_R_2020"
nonisolated(unsafe) public let kCVImageBufferYCbCrMatrix_SMPTE_240M_1995: CFString = "SMPTE_240M_1995"

public struct CVPixelBufferLockFlags: OptionSet, Sendable {
    public let rawValue: CVOptionFlags
    public init(rawValue: CVOptionFlags) { self.rawValue = rawValue }
    public static let readOnly = CVPixelBufferLockFlags(rawValue: 1)
}

public enum CVAttachmentMode: UInt32, Sendable {
    case shouldNotPropagate, shouldPropagate
}

/// What the tests make fail.
public enum CoreVideoDouble {
    /// What creating a buffer returns, instead of a buffer.
    nonisolated(unsafe) public static var createFailure: CVReturn?

    /// What locking a buffer returns.
    nonisolated(unsafe) public static var lockFailure: CVReturn?
}

public final class CVBuffer {
    final class Plane {
        let width: Int
        let height: Int
        let bytesPerRow: Int
        let bytes: UnsafeMutableRawPointer

        /// At least `padding` bytes a row: code that ignores them reads what it should not. A frame's planes differ.
        init(width: Int, height: Int, bytesPerPixel: Int, padding: Int = 16) {
            self.width = width
            self.height = height
            bytesPerRow = (width * bytesPerPixel + padding + 63) / 64 * 64
            bytes = malloc(bytesPerRow * height)
            memset(bytes, 0xA5, bytesPerRow * height)
        }

        deinit { free(bytes) }
    }

    let format: OSType
    let width: Int
    let height: Int
    let planes: [Plane]
    let isPlanar: Bool
    var attachments: [NSString: AnyObject] = [:]
    var locks: [CVPixelBufferLockFlags] = []

    init?(width: Int, height: Int, format: OSType) {
        self.width = width
        self.height = height
        self.format = format
        switch format {
        case kCVPixelFormatType_32BGRA, kCVPixelFormatType_32ARGB:
            planes = [Plane(width: width, height: height, bytesPerPixel: 4)]
            isPlanar = false
        case kCVPixelFormatType_420YpCbCr8BiPlanarFullRange, kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange:
            let half = Plane(width: (width + 1) / 2, height: (height + 1) / 2, bytesPerPixel: 2, padding: 80)
            planes = [Plane(width: width, height: height, bytesPerPixel: 1), half]
            isPlanar = true
        case kCVPixelFormatType_420YpCbCr10BiPlanarFullRange:
            let half = Plane(width: (width + 1) / 2, height: (height + 1) / 2, bytesPerPixel: 4, padding: 80)
            planes = [Plane(width: width, height: height, bytesPerPixel: 2), half]
            isPlanar = true
        default: return nil
        }
    }

    deinit { precondition(locks.isEmpty, "a pixel buffer is freed while it is locked") }
}

@discardableResult
public func CVPixelBufferCreate(
    _ allocator: CFAllocator?, _ width: Int, _ height: Int, _ pixelFormatType: OSType,
    _ pixelBufferAttributes: CFDictionary?, _ pixelBufferOut: UnsafeMutablePointer<CVPixelBuffer?>
) -> CVReturn {
    if let failure = CoreVideoDouble.createFailure { return failure }
    guard width > 0, height > 0 else { return kCVReturnError }
    pixelBufferOut.pointee = CVBuffer(width: width, height: height, format: pixelFormatType)
    return pixelBufferOut.pointee == nil ? kCVReturnInvalidPixelFormat : kCVReturnSuccess
}

@discardableResult
public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ lockFlags: CVPixelBufferLockFlags) -> CVReturn {
    if let failure = CoreVideoDouble.lockFailure { return failure }
    buffer.locks.append(lockFlags)
    return kCVReturnSuccess
}

@discardableResult
public func CVPixelBufferUnlockBaseAddress(
    _ buffer: CVPixelBuffer, _ unlockFlags: CVPixelBufferLockFlags
) -> CVReturn {
    guard let index = buffer.locks.lastIndex(of: unlockFlags) else {
        preconditionFailure("a pixel buffer is unlocked that is not locked so")
    }
    buffer.locks.remove(at: index)
    return kCVReturnSuccess
}

public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { buffer.width }

public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { buffer.height }

public func CVPixelBufferGetPixelFormatType(_ buffer: CVPixelBuffer) -> OSType { buffer.format }

public func CVPixelBufferIsPlanar(_ buffer: CVPixelBuffer) -> Bool { buffer.isPlanar }

public func CVPixelBufferGetPlaneCount(_ buffer: CVPixelBuffer) -> Int { buffer.isPlanar ? buffer.planes.count : 0 }

public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? {
    buffer.locks.isEmpty || buffer.isPlanar ? nil : buffer.planes[0].bytes
}

public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { buffer.planes[0].bytesPerRow }

public func CVPixelBufferGetBaseAddressOfPlane(
    _ buffer: CVPixelBuffer, _ planeIndex: Int
) -> UnsafeMutableRawPointer? {
    buffer.locks.isEmpty || !buffer.planes.indices.contains(planeIndex) ? nil : buffer.planes[planeIndex].bytes
}

public func CVPixelBufferGetBytesPerRowOfPlane(_ buffer: CVPixelBuffer, _ planeIndex: Int) -> Int {
    buffer.planes.indices.contains(planeIndex) ? buffer.planes[planeIndex].bytesPerRow : 0
}

public func CVPixelBufferGetWidthOfPlane(_ buffer: CVPixelBuffer, _ planeIndex: Int) -> Int {
    buffer.planes.indices.contains(planeIndex) ? buffer.planes[planeIndex].width : 0
}

public func CVPixelBufferGetHeightOfPlane(_ buffer: CVPixelBuffer, _ planeIndex: Int) -> Int {
    buffer.planes.indices.contains(planeIndex) ? buffer.planes[planeIndex].height : 0
}

public func CVBufferSetAttachment(
    _ buffer: CVBuffer, _ key: CFString, _ value: CFTypeRef, _ attachmentMode: CVAttachmentMode
) {
    buffer.attachments[key] = value
}

public func CVBufferCopyAttachment(
    _ buffer: CVBuffer, _ key: CFString, _ attachmentMode: UnsafeMutablePointer<CVAttachmentMode>?
) -> CFTypeRef? {
    buffer.attachments[key]
}
