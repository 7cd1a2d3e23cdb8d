import Foundation
import XCTest

#if canImport(FoundationXML)
import FoundationXML
#endif

/// The files that only Xcode reads: that each can be read, and that what they name is there.
final class ProjectTests: XCTestCase {
    private let demo = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Demo")

    private func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: demo.appendingPathComponent(path).path)
    }

    private func plist(_ path: String) throws -> [String: Any] {
        let data = try Data(contentsOf: demo.appendingPathComponent(path))
        let read = try PropertyListSerialization.propertyList(from: data, options: [], format: nil)
        return try XCTUnwrap(read as? [String: Any], path)
    }

    private func json(_ path: String) throws -> [String: Any] {
        let data = try Data(contentsOf: demo.appendingPathComponent(path))
        return try XCTUnwrap(JSONSerialization.jsonObject(with: data) as? [String: Any], path)
    }

    private func xml(_ path: String) throws -> XMLElement {
        let document = try XMLDocument(contentsOf: demo.appendingPathComponent(path), options: [])
        return try XCTUnwrap(document.rootElement(), path)
    }

    // MARK: The project

    private func objects() throws -> [String: [String: Any]] {
        let project = try plist("XFormerDemo.xcodeproj/project.pbxproj")
        return try XCTUnwrap(project["objects"] as? [String: [String: Any]])
    }

    private func objects(_ kind: String) throws -> [String: [String: Any]] {
        try objects().filter { $0.value["isa"] as? String == kind }
    }

    func testTheProjectIsOfXcode16() throws {
        let project = try plist("XFormerDemo.xcodeproj/project.pbxproj")
        XCTAssertEqual(project["objectVersion"] as? String, "77")
        let root = try XCTUnwrap(project["rootObject"] as? String)
        XCTAssertEqual(try objects()[root]?["isa"] as? String, "PBXProject")
    }

    func testEveryReferenceIsToAnObject() throws {
        let all = try objects()
        func references(_ value: Any) -> [String] {
            switch value {
            case let text as String: text.count == 24 && text.hasPrefix("58464F52") ? [text] : []
            case let list as [Any]: list.flatMap(references)
            case let map as [String: Any]: map.flatMap { references($0.key) + references($0.value) }
            default: []
            }
        }
        var used: Set<String> = []
        for (id, object) in all {
            for reference in references(object) {
                XCTAssertNotNil(all[reference], "\(id) names \(reference)")
                used.insert(reference)
            }
        }
        XCTAssertEqual(Set(all.keys).subtracting(used), Set(try objects("PBXProject").keys).subtracting(used))
        XCTAssertGreaterThan(used.count, 30)
    }

    func testEveryPathIsThere() throws {
        var paths: [String] = []
        for (_, file) in try objects("PBXFileReference") where file["sourceTree"] as? String == "<group>" {
            paths.append(try XCTUnwrap(file["path"] as? String))
        }
        for (_, group) in try objects("PBXFileSystemSynchronizedRootGroup") {
            paths.append(try XCTUnwrap(group["path"] as? String))
        }
        for (_, exceptions) in try objects("PBXFileSystemSynchronizedBuildFileExceptionSet") {
            for name in try XCTUnwrap(exceptions["membershipExceptions"] as? [String]) {
                paths.append("XFormerDemo/\(name)")
            }
        }
        for (_, package) in try objects("XCLocalSwiftPackageReference") {
            paths.append("\(try XCTUnwrap(package["relativePath"] as? String))/Package.swift")
        }
        for (_, configuration) in try objects("XCBuildConfiguration") {
            let settings = try XCTUnwrap(configuration["buildSettings"] as? [String: Any])
            if let plist = settings["INFOPLIST_FILE"] as? String {
                paths.append(plist)
                // Else Xcode would copy it into the app a second time, and refuse to.
                let folders = try objects("PBXFileSystemSynchronizedBuildFileExceptionSet").values
                let names = folders.flatMap { $0["membershipExceptions"] as? [String] ?? [] }
                XCTAssertTrue(names.contains { plist == "XFormerDemo/\($0)" }, plist)
            }
            if let icon = settings["ASSETCATALOG_COMPILER_APPICON_NAME"] as? String {
                paths.append("XFormerDemo/Assets.xcassets/\(icon).appiconset/Contents.json")
            }
            if let accent = settings["ASSETCATALOG_COMPILER_GLOBAL_ACCENT_COLOR_NAME"] as? String {
                paths.append("XFormerDemo/Assets.xcassets/\(accent).colorset/Contents.json")
            }
        }
        XCTAssertGreaterThan(paths.count, 8)
        for path in paths { XCTAssertTrue(exists(path), path) }
    }

    func testThePackagesProductIsItsOwn() throws {
        let manifest = try String(contentsOf: demo.appendingPathComponent("../Package.swift"), encoding: .utf8)
        let products = try objects("XCSwiftPackageProductDependency")
        XCTAssertFalse(products.isEmpty)
        for (_, product) in products {
            let name = try XCTUnwrap(product["productName"] as? String)
            XCTAssertTrue(manifest.contains(".library(name: \"\(name)\""), name)
        }
    }

    func testTheSettingsAreThoseOfThePackage() throws {
        let manifest = try String(contentsOf: demo.appendingPathComponent("../Package.swift"), encoding: .utf8)
        XCTAssertTrue(manifest.contains(".iOS(.v16)"))
        let settings = try objects("XCBuildConfiguration").compactMap { $0.value["buildSettings"] as? [String: Any] }
        XCTAssertEqual(Set(settings.compactMap { $0["IPHONEOS_DEPLOYMENT_TARGET"] as? String }), ["16.0"])
        XCTAssertEqual(Set(settings.compactMap { $0["SWIFT_VERSION"] as? String }), ["6.0"])
    }

    // MARK: The scheme and the test plan

    func testTheSchemeAndThePlanNameTargetsOfTheProject() throws {
        let targets = try objects("PBXNativeTarget")
        let scheme = try xml("XFormerDemo.xcodeproj/xcshareddata/xcschemes/XFormerDemo.xcscheme")
        let buildables = try scheme.nodes(forXPath: "//BuildableReference").compactMap { $0 as? XMLElement }
        XCTAssertEqual(buildables.count, 3)
        for buildable in buildables {
            let id = try XCTUnwrap(buildable.attribute(forName: "BlueprintIdentifier")?.stringValue)
            XCTAssertEqual(targets[id]?["name"] as? String, buildable.attribute(forName: "BlueprintName")?.stringValue)
        }
        let plans = try scheme.nodes(forXPath: "//TestPlanReference").compactMap { $0 as? XMLElement }
        XCTAssertEqual(plans.count, 1)
        for plan in plans {
            let reference = try XCTUnwrap(plan.attribute(forName: "reference")?.stringValue)
            XCTAssertTrue(reference.hasPrefix("container:"))
            XCTAssertTrue(exists(String(reference.dropFirst(10))), reference)
        }
        let plan = try json("Performance.xctestplan")
        let tests = try XCTUnwrap(plan["testTargets"] as? [[String: Any]])
        XCTAssertEqual(tests.count, 1)
        for test in tests {
            let target = try XCTUnwrap(test["target"] as? [String: String])
            XCTAssertEqual(targets[target["identifier"] ?? ""]?["name"] as? String, target["name"])
            XCTAssertEqual(target["containerPath"], "container:XFormerDemo.xcodeproj")
        }
    }

    func testTheWorkspaceIsOfTheProject() throws {
        let workspace = try xml("XFormerDemo.xcodeproj/project.xcworkspace/contents.xcworkspacedata")
        XCTAssertEqual(workspace.name, "Workspace")
    }

    // MARK: What goes into the app

    func testInfoPlist() throws {
        let info = try plist("XFormerDemo/Info.plist")
        let why = try XCTUnwrap(info["NSCameraUsageDescription"] as? String)
        XCTAssertFalse(why.isEmpty)
        XCTAssertEqual(info["UIFileSharingEnabled"] as? Bool, true)
        XCTAssertEqual((info["UISupportedInterfaceOrientations"] as? [String])?.count, 3)
        XCTAssertNotNil(info["UILaunchScreen"])
    }

    func testPrivacyManifest() throws {
        let privacy = try plist("XFormerDemo/PrivacyInfo.xcprivacy")
        XCTAssertEqual(privacy["NSPrivacyTracking"] as? Bool, false)
        XCTAssertEqual((privacy["NSPrivacyCollectedDataTypes"] as? [Any])?.count, 0)
        let used = try XCTUnwrap(privacy["NSPrivacyAccessedAPITypes"] as? [[String: Any]])
        for api in used {
            XCTAssertFalse(try XCTUnwrap(api["NSPrivacyAccessedAPITypeReasons"] as? [String]).isEmpty)
        }
        XCTAssertEqual(
            Set(used.compactMap { $0["NSPrivacyAccessedAPIType"] as? String }),
            [
                "NSPrivacyAccessedAPICategoryUserDefaults", "NSPrivacyAccessedAPICategoryFileTimestamp",
                "NSPrivacyAccessedAPICategorySystemBootTime",
            ])
    }

    func testAssetCatalog() throws {
        let catalog = demo.appendingPathComponent("XFormerDemo/Assets.xcassets")
        XCTAssertNotNil(try json("XFormerDemo/Assets.xcassets/Contents.json")["info"])
        let sets = try FileManager.default.contentsOfDirectory(atPath: catalog.path).filter { $0 != "Contents.json" }
        XCTAssertEqual(
            Set(sets),
            [
                "AccentColor.colorset", "AppIcon.appiconset", "Bad.colorset", "Good.colorset", "OnWarning.colorset",
                "Warning.colorset",
            ])
        for name in sets {
            let contents = try json("XFormerDemo/Assets.xcassets/\(name)/Contents.json")
            for image in contents["images"] as? [[String: Any]] ?? [] {
                let file = try XCTUnwrap(image["filename"] as? String)
                XCTAssertTrue(exists("XFormerDemo/Assets.xcassets/\(name)/\(file)"), file)
            }
            if name.hasSuffix(".colorset") {
                XCTAssertEqual((contents["colors"] as? [Any])?.count, 2, "\(name): light and dark")
            }
        }
    }

    /// WCAG's contrast of the colors that are read on each other: 4.5 and more, light and dark.
    func testColorsCanBeRead() throws {
        func luminance(_ name: String, dark: Bool) throws -> Double {
            let contents = try json("XFormerDemo/Assets.xcassets/\(name).colorset/Contents.json")
            let colors = contents["colors"] as? [[String: Any]]
            let color = try XCTUnwrap(colors?.first { ($0["appearances"] != nil) == dark }?["color"] as? [String: Any])
            let parts = try XCTUnwrap(color["components"] as? [String: String])
            let linear = try ["red", "green", "blue"].map { part in
                let text = try XCTUnwrap(parts[part])
                let value = Double(try XCTUnwrap(Int(text.dropFirst(2), radix: 16))) / 255
                return value <= 0.04045 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4)
            }
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        }
        func contrast(_ one: Double, _ other: Double) -> Double {
            (max(one, other) + 0.05) / (min(one, other) + 0.05)
        }
        for dark in [false, true] {
            // Of a form's rows: white, or #1C1C1E.
            let screen = dark ? 0.0116 : 1
            for name in ["AccentColor", "Good", "Bad"] {
                let text = try luminance(name, dark: dark)
                XCTAssertGreaterThanOrEqual(contrast(text, screen), 4.5, "\(name), dark \(dark)")
            }
            let (text, ground) = (try luminance("OnWarning", dark: dark), try luminance("Warning", dark: dark))
            XCTAssertGreaterThanOrEqual(contrast(text, ground), 4.5, "warning, dark \(dark)")
        }
    }

    /// Each text of the code is in the catalog that translators get, and no other.
    func testStringCatalog() throws {
        let catalog = try json("XFormerDemo/Localizable.xcstrings")
        XCTAssertEqual(catalog["sourceLanguage"] as? String, "en")
        let keys = Set(try XCTUnwrap(catalog["strings"] as? [String: Any]).keys)
        let code = try String(contentsOf: demo.appendingPathComponent("XFormerDemo/App/Words.swift"), encoding: .utf8)
        XCTAssertEqual(try Set(localized(in: code)), keys)
        try checkThatEachTextIsUsed(code)
        XCTAssertGreaterThan(keys.count, 100)
    }

    private func checkThatEachTextIsUsed(_ words: String) throws {
        let app = demo.appendingPathComponent("XFormerDemo")
        let paths = try FileManager.default.subpathsOfDirectory(atPath: app.path).filter { $0.hasSuffix(".swift") }
        let code = try paths.map { try String(contentsOf: app.appendingPathComponent($0), encoding: .utf8) }
        let used = Set(try matches(of: #"Words\.(\w+)"#, in: code.joined()))
        let named = Set(try matches(of: #"static (?:let|func) (\w+)"#, in: words))
        XCTAssertEqual(named.subtracting(used), [])
        XCTAssertGreaterThan(named.count, 100)
    }

    private func matches(of pattern: String, in text: String) throws -> [String] {
        try NSRegularExpression(pattern: pattern).matches(in: text, range: NSRange(text.startIndex..., in: text))
            .compactMap { Range($0.range(at: 1), in: text).map { String(text[$0]) } }
    }

    /// The keys that Swift makes of `String(localized:)`: what is put in becomes %@.
    private func localized(in code: String) throws -> [String] {
        let literal = try NSRegularExpression(
            pattern: #"localized:\s*(?:"""\n(.*?)\n *"""|"((?:[^"\\]|\\.)*)")"#, options: [.dotMatchesLineSeparators])
        let value = try NSRegularExpression(pattern: #"\\\([^()]*\)"#)
        return literal.matches(in: code, range: NSRange(code.startIndex..., in: code)).map { match in
            var text = ""
            if let range = Range(match.range(at: 1), in: code) {
                let lines = code[range].components(separatedBy: "\n")
                let indent = lines.filter { !$0.isEmpty }.map { $0.prefix { $0 == " " }.count }.min() ?? 0
                text = lines.map { String($0.dropFirst(indent)) }.joined(separator: "\n")
                    .replacingOccurrences(of: "\\\n", with: "")
            } else if let range = Range(match.range(at: 2), in: code) {
                text = String(code[range])
            }
            return value.stringByReplacingMatches(
                in: text, range: NSRange(text.startIndex..., in: text), withTemplate: "%@")
        }
    }

    /// `make ios-assets` fills the folder; Xcode wants it to be there, empty or not.
    func testTheBundlesFolderIsKeptAndItsContentIgnored() throws {
        let ignored = try String(contentsOf: demo.appendingPathComponent("Bundles/.gitignore"), encoding: .utf8)
        XCTAssertEqual(ignored.split(separator: "\n").filter { !$0.hasPrefix("#") }, ["*", "!.gitignore"])
    }
}
