package xformer.mobile.demo

/**
 * The headless benchmark in the test APK, which device farms ask for beside the app: Firebase Test Lab refuses a test APK
 * whose instrumentation is in the app's own, and one without code can't be installed.
 */
class FarmInstrumentation : HeadlessInstrumentation()
