// A test double of what Core Foundation has and Foundation on Linux has not. On Apple's systems these types are bridged
// to Foundation's; here they are Foundation's.

import Foundation

public typealias CFTypeRef = AnyObject
public typealias CFString = NSString
public typealias CFData = NSData
public typealias CFDictionary = NSDictionary
public typealias CFURL = NSURL

public final class CFAllocator: Sendable {}

public let kCFAllocatorDefault: CFAllocator? = nil
