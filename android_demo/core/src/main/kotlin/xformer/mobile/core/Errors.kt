package xformer.mobile.core

/**
 * Base of every exception that this library throws on purpose.
 *
 *     XFormerException
 *     ├── BundleException       a bundle, manifest or artifact that is missing, broken, foreign or hostile; an artifact
 *     │                         that an engine refuses; outputs that are not those declared, or not finite
 *     ├── ImageException        a picture that can't be used
 *     ├── EngineException       an engine or accelerator that is not there, or fails
 *     ├── UsageException        a call that can't be right: a value out of range, a format the bundle lacks, closed
 *     └── BenchmarkException    a measurement that can't be used
 *
 * A message is one line: what was got, what is valid, what to do. It may be shown to users.
 */
public sealed class XFormerException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** A bundle, manifest or artifact can't be used, or returns what it should not. */
public class BundleException(message: String, cause: Throwable? = null) : XFormerException(message, cause)

/** A picture can't be used. */
public class ImageException(message: String, cause: Throwable? = null) : XFormerException(message, cause)

/** An engine or accelerator is not there, or fails. */
public class EngineException(message: String, cause: Throwable? = null) : XFormerException(message, cause)

/** The call is wrong in itself. */
public class UsageException(message: String, cause: Throwable? = null) : XFormerException(message, cause)

/** A measurement can't be used. */
public class BenchmarkException(message: String, cause: Throwable? = null) : XFormerException(message, cause)
