package process

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

const checksumCure = "install the right one, or correct sha256 in its module"

// checksum sees to it that an open file is a program with that checksum. Problem is
// what is wrong, to go behind the file's name.
func checksum(file *os.File, want *[sha256.Size]byte) (problem string, err error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(file, head); err != nil || !bytes.Equal(head, []byte("\x7fELF")) {
		return "a checksum is for a program (an ELF file), and this is none", ErrWrongChecksum
	}
	sum := sha256.New()
	sum.Write(head)
	if _, err := io.Copy(sum, file); err != nil {
		return unreadable(err), err
	}
	if got := sum.Sum(nil); !bytes.Equal(got, want[:]) {
		return fmt.Sprintf("its checksum is %x and should be %x", got, want[:]), ErrWrongChecksum
	}
	return "", nil
}

func unreadable(err error) string { return fmt.Sprintf("it can not be read for its checksum: %v", err) }

// mostVerified is the largest program that Verify reads, which takes a second or two.
const mostVerified = 1 << 30

// Verify tells what is wrong if Start would refuse the program at path for its
// checksum. A very large one is left to Start.
func Verify(path string, want *[sha256.Size]byte) error {
	refuse := func(problem string, err error) error {
		return &checksumError{fmt.Sprintf("%s: %s; %s", path, problem, checksumCure), err}
	}
	file, err := os.Open(path)
	if err != nil {
		return refuse(unreadable(err), err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > mostVerified {
		return nil
	}
	if problem, err := checksum(file, want); err != nil {
		return refuse(problem, err)
	}
	return nil
}

// checksumError has the words of its cause already.
type checksumError struct {
	text  string
	cause error
}

func (e *checksumError) Error() string { return e.text }

func (e *checksumError) Unwrap() error { return e.cause }
