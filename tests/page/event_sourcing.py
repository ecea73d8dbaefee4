from commons_events.sourcing import EventStore, AggregateRoot, DomainEvent

# Define aggregate
class UserAggregate(AggregateRoot):
    def __init__(self, user_id: str):
        super().__init__(user_id)
        self.email = None
        self.active = False
    
    def create(self, email: str) -> None:
        self.apply(UserCreated(
            aggregate_id=self.id,
            email=email,
            timestamp=datetime.utcnow(),
        ))
    
    def activate(self) -> None:
        if self.active:
            raise ValueError("Already active")
        self.apply(UserActivated(
            aggregate_id=self.id,
            timestamp=datetime.utcnow(),
        ))
    
    def handle_user_created(self, event: UserCreated) -> None:
        self.email = event.email
    
    def handle_user_activated(self, event: UserActivated) -> None:
        self.active = True

# Use event store
store = EventStore(connection_string="postgresql://localhost/events")

# Create and save aggregate
user = UserAggregate("user_123")
user.create("user@example.com")
user.activate()

await store.save(user)

# Load aggregate from events
loaded = await store.load(UserAggregate, "user_123")
assert loaded.email == "user@example.com"
assert loaded.active is True

# Query events
events = await store.get_events(
    aggregate_id="user_123",
    from_version=0,
)
