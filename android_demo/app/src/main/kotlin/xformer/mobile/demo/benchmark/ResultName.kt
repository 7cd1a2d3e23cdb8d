package xformer.mobile.demo.benchmark

/** The names that result files may have: they come from other apps, by an intent or by the content provider. */
object ResultName {
    /** What every name ends with. */
    const val SUFFIX = ".json"

    private val VALID = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,94}\\.json")

    /** Whether a name is that of a file in the results' own folder: no path, nothing hidden, and a .json file. */
    fun isValid(name: String): Boolean = VALID.matches(name)

    /** The file beside the results that says how the run ended: `results.json` has `results.status.json`. */
    fun status(name: String): String {
        require(isValid(name)) { "'$name' is not the name of a result file" }
        return name.removeSuffix(SUFFIX) + ".status" + SUFFIX
    }
}
