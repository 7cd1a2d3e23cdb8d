package xformer.mobile

import android.app.ActivityManager
import android.content.Context
import android.os.Build
import android.os.PowerManager
import android.provider.Settings
import java.io.File
import java.io.IOException
import java.security.MessageDigest
import java.util.UUID
import xformer.mobile.core.BenchmarkProbe
import xformer.mobile.core.Machine
import xformer.mobile.core.ThermalState

/**
 * What a phone says of itself for a benchmark. What it does not say is null, not guessed.
 *
 * The phone's id is a hash of a random number that is kept with the app: it is the same until the app is installed
 * anew, and made of no serial number, account or address.
 */
public class DeviceInfo(context: Context) : BenchmarkProbe {
    private val context: Context = context.applicationContext

    /** The phone. Reads files: not for the main thread. */
    public fun machine(): Machine {
        val install = installId(File(context.noBackupFilesDir, "xformer-install-id"))
        return Machine(
            id = hashed(install, Build.MODEL),
            boot = bootCount()?.let { hashed(install, it.toString()) },
            system = "Android",
            release = "${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
            architecture = Build.SUPPORTED_ABIS.firstOrNull(),
            model = Build.MODEL,
            cpu = processor(),
            cpus = processors(File("/sys/devices/system/cpu")),
            usableCpus = Runtime.getRuntime().availableProcessors(),
            memoryBytes = memoryBytes(),
            governor = textOf(File("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            loadAverage = textOf(File("/proc/loadavg"))?.substringBefore(' ')?.toDoubleOrNull(),
        )
    }

    /** How hot the phone is; null before Android 10, which does not say. */
    override fun thermalState(): ThermalState? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return null
        val power = context.getSystemService(PowerManager::class.java) ?: return null
        return ThermalState.entries.getOrNull(power.currentThermalStatus)
    }

    override fun residentBytes(): Long? = bytesOf(File(STATUS), "VmRSS")

    /** Since the process began, not since the benchmark did. */
    override fun peakResidentBytes(): Long? = bytesOf(File(STATUS), "VmHWM")

    override fun preemptions(): Long? = preemptionsOf(File("/proc/self/task"))

    private fun processor(): String {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.S) return Build.HARDWARE
        return listOf(Build.SOC_MANUFACTURER, Build.SOC_MODEL).filter { it != Build.UNKNOWN }.joinToString(" ")
            .ifEmpty { Build.HARDWARE }
    }

    private fun memoryBytes(): Long? {
        val manager = context.getSystemService(ActivityManager::class.java) ?: return null
        return ActivityManager.MemoryInfo().also { manager.getMemoryInfo(it) }.totalMem
    }

    private fun bootCount(): Int? = try {
        Settings.Global.getInt(context.contentResolver, Settings.Global.BOOT_COUNT)
    } catch (_: Settings.SettingNotFoundException) {
        null
    }

    private companion object {
        const val STATUS = "/proc/self/status"
    }
}

// ---- what Linux says in files, none of which need be readable ------------------------------------------------------

/** The number that a file keeps; made and kept where there is none yet. */
internal fun installId(file: File): String {
    textOf(file)?.let { return it }
    val made = UUID.randomUUID().toString()
    try {
        file.parentFile?.mkdirs()
        file.writeText(made)
    } catch (_: IOException) {
        // It will be another one next time.
    }
    return made
}

/** A short hash of texts, the same for the same ones. */
internal fun hashed(vararg parts: String): String =
    MessageDigest.getInstance("SHA-256").digest(parts.joinToString("\n").toByteArray())
        .take(HASH_BYTES).joinToString("") { "%02x".format(it) }

private const val HASH_BYTES = 8

/** A small file's text without blanks around it; null where it can't be read or is empty. */
internal fun textOf(file: File): String? = try {
    file.readText().trim().ifEmpty { null }
} catch (_: IOException) {
    null
}

/** The processors that there are, whether they are awake or not; null where the system does not say. */
internal fun processors(directory: File): Int? =
    directory.list()?.count { PROCESSOR.matches(it) }?.takeIf { it > 0 }

private val PROCESSOR = Regex("cpu[0-9]+")

/** A field of a status file of a process, in kilobytes there and in bytes here. */
internal fun bytesOf(status: File, field: String): Long? = fieldOf(status, field)?.let { it * 1024 }

/** How often all threads of a process, now alive, lost their processor; of the directory with one for each. */
internal fun preemptionsOf(tasks: File): Long? {
    val counts = tasks.listFiles().orEmpty().mapNotNull { fieldOf(File(it, "status"), "nonvoluntary_ctxt_switches") }
    return if (counts.isEmpty()) null else counts.sum()
}

private fun fieldOf(status: File, field: String): Long? = textOf(status)?.lineSequence()
    ?.firstOrNull { it.startsWith("$field:") }
    ?.substringAfter(':')?.trim()?.substringBefore(' ')?.toLongOrNull()
