package agent

// Place is where a live process stands in the LAN (design section 4).
type Place int

const (
	None Place = iota // no live process
	PlaceServed
	PlaceOpen
	PlaceElsewhere
	PlaceUnneeded
)

func (p Place) String() string {
	return [...]string{"NONE", "SERVED", "OPEN", "ELSEWHERE", "UNNEEDED"}[p]
}

// places is the table of places: what the LAN says of an instance -> where
// its live process stands.
//
//	record of the service: none, ours, or another's
//	need: closed or open
var places = map[lanView]Place{
	{recordNone, false}:  PlaceUnneeded,
	{recordNone, true}:   PlaceOpen,
	{recordOurs, false}:  PlaceServed,
	{recordOurs, true}:   PlaceServed, // the need's end is on its way
	{recordOther, false}: PlaceElsewhere,
	{recordOther, true}:  PlaceOpen, // the record's end is on its way
}

// lanView is what the LAN says of an instance.
type lanView struct {
	record   record
	needOpen bool
}

type record int

const (
	recordNone record = iota
	recordOurs
	recordOther
)

// place is where an instance stands as far as the agent knows: that it is not needed
// it knows once it has read the LAN's tables.
func (l *loop) place(i *instance) Place {
	if p := i.place(l.address()); p != PlaceUnneeded || l.read {
		return p
	}
	return None
}

// place tells where the live process of an instance stands, if our address is
// that.
func (i *instance) place(address string) Place {
	if !i.live() {
		return None
	}
	view := lanView{needOpen: i.need != nil}
	switch {
	case i.service == nil:
	case i.service.IPAddress == address && i.service.Ports == i.child.ports:
		view.record = recordOurs
	default:
		view.record = recordOther
	}
	return places[view]
}
