package xformer.mobile.demo.camera

import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import org.junit.jupiter.api.Test

class LeasesTest {
    private val released = AtomicInteger()
    private val leases = Leases { released.incrementAndGet() }

    @Test
    fun `what nobody uses is released at once`() {
        leases.close()
        assertEquals(1, released.get())
    }

    @Test
    fun `what is used is released after its last use`() {
        val first = assertNotNull(leases.lease())
        val second = assertNotNull(leases.lease())
        leases.close()
        first.close()
        assertEquals(0, released.get())
        second.close()
        assertEquals(1, released.get())
    }

    @Test
    fun `closing a lease twice counts once`() {
        val first = assertNotNull(leases.lease())
        val second = assertNotNull(leases.lease())
        leases.close()
        first.close()
        first.close()
        assertEquals(0, released.get())
        second.close()
        assertEquals(1, released.get())
    }

    @Test
    fun `after closing nothing is lent`() {
        leases.close()
        assertNull(leases.lease())
        leases.close()
        assertEquals(1, released.get())
    }

    @Test
    fun `it is released once, whatever the threads do`() {
        val threads = List(4) { thread { repeat(5000) { leases.lease()?.close() } } }
        leases.close()
        threads.forEach(Thread::join)
        assertEquals(1, released.get())
    }
}
