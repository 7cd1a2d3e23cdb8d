package xformer.mobile.core

public sealed class XFormerException(message: String, cause: Throwable? = null) : Exception(message, cause)
