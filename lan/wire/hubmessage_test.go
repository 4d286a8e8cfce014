package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

func recordedFrames(t testing.TB, name string) []transcript.Frame {
	t.Helper()
	frames, err := transcript.Frames("../testdata/transcripts/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

func unpackerOf(kind transcript.Kind) *unpacker {
	target := onServer
	if kind == transcript.FromServer {
		target = onClient
	}
	return &unpacker{limits: DefaultLimits(), target: target}
}

// open takes a frame apart, with what it does not understand left out.
func (p *unpacker) open(frame []byte) (units [][]byte, err error) {
	messages, err := p.messages(frame)
	for _, message := range messages {
		unit, fault := p.unit(message)
		switch {
		case fault != nil && !errors.Is(fault, errNotMessage):
			return units, fault
		case unit != nil:
			units = append(units, unit)
		}
	}
	return units, err
}

// Every frame of the recording is understood, and made again byte by byte.
func TestRecordedFramesThereAndBack(t *testing.T) {
	count := 0
	for _, frame := range recordedFrames(t, "master-signalr.log") {
		if frame.Text == clientHello || frame.Text == serverHello || frame.Text == keepAlive {
			continue
		}
		appendMessage := appendToServer
		if frame.Kind == transcript.FromServer {
			appendMessage = appendToClient
		}
		units, err := unpackerOf(frame.Kind).open([]byte(frame.Text))
		if err != nil {
			t.Errorf("line %d: %v", frame.Number, err)
		}
		var back []byte
		for _, unit := range units {
			back = appendMessage(back, unit)
			count++
		}
		if diff := cmp.Diff(frame.Text, string(back)); diff != "" {
			t.Errorf("line %d: %s", frame.Number, diff)
		}
	}
	if count != 29+88 {
		t.Errorf("%d units", count)
	}
}

func TestUnpack(t *testing.T) {
	toServer := func(arguments string) string {
		return `{"type":1,"target":"allexjs","arguments":` + arguments + "}\x1e"
	}
	toClient := func(text string) string {
		quoted, _ := json.Marshal(text)
		return `{"type":1,"target":"_","arguments":[` + string(quoted) + "]}\x1e"
	}
	tests := map[string]struct {
		from   transcript.Kind
		frames []string
		want   []string
		err    error
	}{
		"several in a frame":       {transcript.FromClient, []string{toServer(`[["?",1]]`) + keepAlive + toServer(`[["?",2]]`)}, []string{`["?",1]`, `["?",2]`}, nil},
		"one over frames":          {transcript.FromClient, []string{`{"type":1,"target":"allex`, `js","arguments":[["?",1]]}`, "\x1e" + keepAlive[:3]}, []string{`["?",1]`}, nil},
		"any order, any space":     {transcript.FromClient, []string{` { "arguments" : [ ["?",1] , 2 ] , "invocationId":"7", "target" : "allexjs", "type" : 1 } ` + "\x1e"}, []string{`["?",1]`}, nil},
		"what is no unit":          {transcript.FromClient, []string{toServer(`[{"a":1}]`)}, []string{`{"a":1}`}, nil},
		"rubbish":                  {transcript.FromClient, []string{"\x1e\x1e{}\x1e5\x1e[\x1e{\"type\":3}\x1e{\"type\":\"1\"}\x1e" + toServer(`[]`) + toServer(`null`) + toServer(`7`) + toClient(`[1]`) + toServer(`[["?",1]]`)}, []string{`["?",1]`}, nil},
		"goodbye":                  {transcript.FromClient, []string{toServer(`[["?",1]]`) + hubGoodbye + toServer(`[["?",2]]`)}, []string{`["?",1]`}, errGoodbye},
		"too deep":                 {transcript.FromClient, []string{toServer(`[` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `]`)}, nil, nil},
		"just not too deep":        {transcript.FromClient, []string{toServer(`[` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `]`)}, []string{strings.Repeat("[", 64) + strings.Repeat("]", 64)}, nil},
		"of a server":              {transcript.FromServer, []string{toClient(`[["r","1",true]]`)}, []string{`["r","1",true]`}, nil},
		"not packed twice":         {transcript.FromServer, []string{`{"type":1,"target":"_","arguments":[["r","1",true]]}` + "\x1e", toClient(`["?",1]`), toClient(`[1,`), toClient(`[]`)}, nil, nil},
		"pieces":                   {transcript.FromServer, []string{toClient(`[["~",1,"[[\"r\",\"1\","]]`), toClient(`[["?",5]]`), toClient(`[["~",0,"\"x\"]]"]]`), toClient(`[["~",0,"[7]"]]`)}, []string{`["?",5]`, `["r","1","x"]`, `7`}, nil},
		"a character cut in two":   {transcript.FromServer, []string{toClient(`[["~",1,"[\"\ud83d"]]`), toClient(`[["~",0,"\ude00\"]"]]`)}, []string{`"😀"`}, nil},
		"pieces of a client":       {transcript.FromClient, []string{toServer(`[["~",2,"["]]`) + toServer(`[["~",1,"5"]]`) + toServer(`[["~",0,"]"]]`)}, []string{`5`}, nil},
		"pieces of rubbish":        {transcript.FromClient, []string{toServer(`[["~",0,"[1"]]`) + toServer(`[["~",0,5]]`) + toServer(`[["~",null,"x"]]`) + toServer(`[["~",0]]`) + toServer(`[["~",0,"[2]"]]`)}, []string{`2`}, nil},
		"a piece too many":         {transcript.FromClient, []string{strings.Repeat(toServer(`[["~",1,"`+strings.Repeat("x", 1<<20)+`"]]`), 3)}, nil, ErrTooLarge},
		"a message without an end": {transcript.FromClient, []string{"{", strings.Repeat("x", 4<<20)}, nil, ErrTooLarge},
	}
	for name, test := range tests {
		p := unpackerOf(test.from)
		var got []string
		var err error
		for _, frame := range test.frames {
			var units [][]byte
			units, err = p.open([]byte(frame))
			got = append(got, texts(units)...)
		}
		if !errors.Is(err, test.err) {
			t.Errorf("%s: error %v", name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestCut(t *testing.T) {
	for _, unit := range []string{
		`1`, `"` + strings.Repeat("x", frameSize-4) + `"`, `"` + strings.Repeat("x", frameSize-3) + `"`,
		`"` + strings.Repeat("😀", 100_000) + `"`, `"x` + strings.Repeat("ž", 100_000) + `"`, `["\"` + strings.Repeat(`\\`, 100_000) + `"]`,
		strings.Repeat("\x80", 100_000),
	} {
		var frames []byte
		pieces := 0
		err := cut([]byte(unit), func(piece []byte) error {
			if len(piece) > 2*frameSize+100 || utf8.ValidString(unit) && !utf8.Valid(piece) {
				t.Errorf("a piece of %d bytes", len(piece))
			}
			pieces++
			frames = appendToClient(frames, piece)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if want := (len(unit) + 1 + frameSize) / frameSize; pieces < want || pieces > want+1 {
			t.Errorf("%.10q of %d bytes was cut in %d", unit, len(unit), pieces)
		}
		units, err := unpackerOf(transcript.FromServer).open(frames)
		if !utf8.ValidString(unit) {
			continue // no frame would carry it
		}
		if err != nil || len(units) != 1 || !bytes.Equal(units[0], []byte(unit)) {
			t.Errorf("%.10q of %d bytes became %d units: %v", unit, len(unit), len(units), err)
		}
	}
	broken := errors.New("broken")
	if err := cut(make([]byte, 200_000), func([]byte) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
