import Foundation

/// `xformer-bench-apple`: what an app's benchmark screen does, for a terminal and for CI.
@main
enum Main {
    static func main() async {
        exit(await Command().run(Array(CommandLine.arguments.dropFirst())))
    }
}
