package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDoctorOfTheClock(t *testing.T) {
	for _, test := range []struct {
		state  int
		status int32
		err    error
		want   grade
	}{
		{unix.TIME_OK, 0, nil, good},
		{unix.TIME_INS, 0, nil, good},
		{unix.TIME_OK, unix.STA_UNSYNC, nil, warn},
		{unix.TIME_ERROR, 0, nil, warn},
		{-1, unix.STA_UNSYNC, errors.New("not permitted"), good},
	} {
		if f := timekeeping(test.state, test.status, test.err); f.Grade != test.want || f.Grade == warn && f.Cure == "" {
			t.Errorf("%+v: %+v", test, f)
		}
	}
}

func TestDoctorOfTheDisk(t *testing.T) {
	for _, test := range []struct {
		name    string
		f       finding
		want    grade
		because string
	}{
		{"room", room("/s", false, leastBytes, true, leastFiles), good, "/s, with 256.0MiB free"},
		{"no bound of files", room("/s", false, leastBytes, false, 0), good, "/s"},
		{"read-only", room("/s", true, leastBytes, true, leastFiles), fail, "read-only"},
		{"full", room("/s", false, 0, true, leastFiles), fail, "full"},
		{"no file", room("/s", false, leastBytes, true, 0), fail, "full"},
		{"nearly full", room("/s", false, leastBytes-1, true, leastFiles), warn, "nearly full"},
		{"few files", room("/s", false, leastBytes, true, leastFiles-1), warn, "nearly full"},
	} {
		if test.f.Grade != test.want || !strings.Contains(test.f.What, test.because) || (test.f.Cure == "") != (test.want == good) {
			t.Errorf("%s: %+v", test.name, test.f)
		}
	}
	dir := filepath.Join(t.TempDir(), "not", "yet")
	if f := disk(dir); f.About != aboutState || !strings.Contains(f.What, dir) || strings.Contains(f.What, "can not") {
		t.Errorf("one that is not there yet: %+v", f)
	}
}
