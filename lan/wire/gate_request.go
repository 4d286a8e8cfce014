package wire

import "encoding/json"

// Request is a call under way. It is answered once, by Resolve, Reject or
// Reserve; before that Notify may be used any number of times. When its session
// has ended, or after its answer, all of them do nothing.
type Request struct {
	// Method is the target and the name together: "!query" is a method of the
	// session, ".addNeed" one of the business.
	Method string

	session  *ServerSession
	id       string
	name     string
	args     []json.RawMessage
	answered bool
}

// Resolve answers with a value; a json.RawMessage travels as it is and must not
// be changed any more.
func (r *Request) Resolve(value any) {
	r.answer(Unit{Kind: Resolve, ID: r.id, Value: marshal(value)})
}

// Reject answers with an error.
func (r *Request) Reject(code, message string) {
	r.answer(Unit{Kind: Reject, ID: r.id, Code: code, Message: message})
}

// Unknown answers that there is no such method.
func (r *Request) Unknown() {
	r.Reject("METHOD_DOES_NOT_EXIST", "Method "+r.name+" does not exist")
}

// Notify sends an item to whoever waits for the answer. The item may be shared
// with other requests and must not be changed any more.
func (r *Request) Notify(item json.RawMessage) {
	if r.Pending() {
		r.session.channel.send(Unit{Kind: Notify, ID: r.id, Value: item})
	}
}

// Pending tells whether an answer is still waited for.
func (r *Request) Pending() bool {
	return !r.answered && !r.session.closed && !r.session.channel.closed
}

// Reserve answers a subConnect: it reserves a sub-session for what is granted
// (PROTOCOL section 4). If that can not be, the grant's user is closed and nil
// is returned.
func (r *Request) Reserve(g Grant) *ServerSession {
	if !r.Pending() {
		g.User.Closed()
		return nil
	}
	sub, err := r.session.channel.admit("", g)
	if err != nil {
		r.Reject(err.Code, err.Message)
		return nil
	}
	r.Resolve(map[string]any{"introduce": introduction{sub.id, g.ModuleName, g.Role}})
	return sub
}

type introduction struct {
	Session    string `json:"session"`
	ModuleName string `json:"modulename"`
	Role       string `json:"role"`
}

func (r *Request) answer(u Unit) {
	if !r.Pending() {
		return
	}
	r.answered = true
	r.session.inFlight--
	r.session.channel.inFlight--
	r.session.channel.send(u)
}

// Session is the session that the request came in on.
func (r *Request) Session() *ServerSession { return r.session }

// Arg returns argument i, nil if there are not so many.
func (r *Request) Arg(i int) json.RawMessage {
	if i < len(r.args) {
		return r.args[i]
	}
	return nil
}

// String returns argument i, "" if it is absent. If it is something else than
// a string, ok is false and the request has been rejected; name is what the
// argument is called there.
func (r *Request) String(i int, name string) (value string, ok bool) {
	return value, r.decode(i, name, "string", '"', &value)
}

// Object is like String for an object; nil if it is absent.
func (r *Request) Object(i int, name string) (value map[string]json.RawMessage, ok bool) {
	return value, r.decode(i, name, "object", '{', &value)
}

// Strings is like String for an array of strings; nil if it is absent.
func (r *Request) Strings(i int, name string) (value []string, ok bool) {
	return value, r.decode(i, name, "array", '[', &value)
}

// decode checks by the first character, since JSON's null would pass as a zero
// value of everything. The texts of the rejections are the original's.
func (r *Request) decode(i int, name, kind string, first byte, into any) bool {
	text := r.Arg(i)
	if text == nil {
		return true
	}
	if len(text) > 0 && text[0] == first && json.Unmarshal(text, into) == nil {
		return true
	}
	r.Reject(name+":  is not of a type(s) "+kind, "")
	return false
}

// marshal is for values that this package and its users make themselves, of
// which none can fail.
func marshal(value any) json.RawMessage {
	if raw, ok := value.(json.RawMessage); ok {
		return raw
	}
	text, err := json.Marshal(value)
	if err != nil {
		panic("wire: a value that is no JSON: " + err.Error())
	}
	return text
}
