package xformer.mobile.demo.model

/** The names that bundles may have: they are names of folders, and may come from another app. */
object BundleName {
    private val VALID = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

    /** Whether a name is safe as that of a folder: letters, digits, `.`, `_` and `-`, at most 64, no `.` in front. */
    fun isValid(name: String): Boolean = VALID.matches(name)

    /**
     * A valid name for a bundle that is imported from a file of that name: without `.zip`, other characters replaced by
     * `-`, and a number at the end where [taken] has it already.
     */
    fun of(fileName: String, taken: Set<String>): String {
        val stem = fileName.substringAfterLast('/').removeSuffix(".zip").removeSuffix(".ZIP")
        val cleaned = stem.map { if (VALID.matches("a$it")) it else '-' }.joinToString("").trimStart('.', '-', '_')
        val name = cleaned.take(MOST).ifEmpty { "bundle" }
        return generateSequence(1) { it + 1 }
            .map { if (it == 1) name else "$name-$it" }
            .first { it !in taken }
    }

    private const val MOST = 56
}
