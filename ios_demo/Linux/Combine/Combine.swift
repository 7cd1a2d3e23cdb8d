@_exported import FoundationOnApple

/// Sends values of one type over time.
public protocol Publisher<Output, Failure> {
    associatedtype Output
    associatedtype Failure: Error
}

extension Publisher {
    public func receive<S: Scheduler>(on scheduler: S, options: S.SchedulerOptions? = nil)
        -> Publishers.ReceiveOn<Self, S>
    { Publishers.ReceiveOn() }
}

public protocol Scheduler {
    associatedtype SchedulerOptions
}

extension RunLoop: Scheduler {
    public struct SchedulerOptions {}
}

public enum Publishers {
    public struct ReceiveOn<Upstream: Publisher, Context: Scheduler>: Publisher {
        public typealias Output = Upstream.Output
        public typealias Failure = Upstream.Failure
    }
}

extension NotificationCenter {
    public struct Publisher: Combine.Publisher {
        public typealias Output = Notification
        public typealias Failure = Never
    }

    public func publisher(for name: Notification.Name, object: AnyObject? = nil) -> NotificationCenter.Publisher {
        NotificationCenter.Publisher()
    }
}

/// Tells before it changes.
public protocol ObservableObject: AnyObject {}

/// A property whose changes are told. Here it only holds its value.
@propertyWrapper
public struct Published<Value> {
    public struct Publisher: Combine.Publisher {
        public typealias Output = Value
        public typealias Failure = Never
    }

    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }

    public init(initialValue: Value) { wrappedValue = initialValue }

    public var wrappedValue: Value

    public var projectedValue: Publisher {
        get { Publisher() }
        set {}
    }
}
