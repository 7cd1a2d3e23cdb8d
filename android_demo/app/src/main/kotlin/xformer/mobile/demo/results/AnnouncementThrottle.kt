package xformer.mobile.demo.results

/**
 * Lets a screen reader speak of live results now and then only: what has not changed is not said again, and nothing
 * within [quietNs] nanoseconds of the last announcement.
 */
class AnnouncementThrottle(private val quietNs: Long) {
    private var said: String? = null
    private var saidAtNs = 0L

    /** The text, if it is to be announced now; null otherwise. [nowNs] is of a clock that never goes back. */
    fun next(text: String, nowNs: Long): String? {
        if (text == said || (said != null && nowNs - saidAtNs < quietNs)) return null
        said = text
        saidAtNs = nowNs
        return text
    }

    /** The next text is announced, whatever it is. */
    fun reset() {
        said = null
    }
}
