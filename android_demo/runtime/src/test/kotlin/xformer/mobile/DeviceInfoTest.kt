package xformer.mobile

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNotEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.io.TempDir

/** What is read from files; the rest needs Android. */
class DeviceInfoTest {
    @TempDir
    lateinit var directory: File

    @Test
    fun `an install's number is kept`() {
        val file = File(directory, "a/b/id")
        val made = installId(file)
        assertEquals(made, installId(file))
        assertEquals(made, file.readText())
        assertNotEquals(made, installId(File(directory, "other")))
        // Where it can't be kept there is one all the same.
        assertEquals(36, installId(File(file, "below a file")).length)
    }

    @Test
    fun `a hash names nothing that it is made of`() {
        val hash = hashed("serial", "model")
        assertTrue(hash.matches(Regex("[0-9a-f]{16}")))
        assertEquals(hash, hashed("serial", "model"))
        assertNotEquals(hash, hashed("serial", "mode", "l"))
    }

    @Test
    fun `processors are counted, whether they are awake or not`() {
        for (name in listOf("cpu0", "cpu1", "cpu10", "cpufreq", "cpuidle", "online")) File(directory, name).mkdir()
        assertEquals(3, processors(directory))
        assertNull(processors(File(directory, "missing")))
        assertNull(processors(File(directory, "cpu0")))
    }

    @Test
    fun `fields of a status file`() {
        val status = File(directory, "status")
        status.writeText("Name:\tapp\nVmHWM:\t  123456 kB\nVmRSS:\t   1024 kB\nnonvoluntary_ctxt_switches:\t17\n")
        assertEquals(1024L * 1024, bytesOf(status, "VmRSS"))
        assertEquals(123_456L * 1024, bytesOf(status, "VmHWM"))
        assertNull(bytesOf(status, "VmSwap"))
        assertNull(bytesOf(status, "Name"))
        assertNull(bytesOf(File(directory, "missing"), "VmRSS"))
    }

    @Test
    fun `preemptions are those of all threads`() {
        for ((thread, count) in mapOf("1" to 17, "2" to 4)) {
            File(directory, "task/$thread").mkdirs()
            File(directory, "task/$thread/status")
                .writeText("voluntary_ctxt_switches:\t900\nnonvoluntary_ctxt_switches:\t$count\n")
        }
        File(directory, "task/3").mkdirs()
        assertEquals(21L, preemptionsOf(File(directory, "task")))
        assertNull(preemptionsOf(File(directory, "missing")))
    }

    @Test
    fun `an empty file says nothing`() {
        val file = File(directory, "governor")
        file.writeText(" \n")
        assertNull(textOf(file))
        file.writeText("schedutil\n")
        assertEquals("schedutil", textOf(file))
    }
}
