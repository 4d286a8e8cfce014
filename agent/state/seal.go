package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// A sealed file is one JSON object with the SHA-256 of the text of its second
// member, in exactly these bytes:
//
//	{"sha256":"<64 hexadecimal digits>","content":<content>}\n
//
// So a change of any byte is seen.
const (
	sealHead = `{"sha256":"`
	sealNeck = `","content":`
	sealTail = "}\n"
)

// version is the one of the format that this agent reads and writes, of records
// and of kept.json.
const version = 1

// versionError says that another agent has written a file, most likely a newer one.
type versionError int

func (e versionError) Error() string {
	return fmt.Sprintf("it has version %d of the format, this agent knows %d", int(e), version)
}

// maxFile bounds what is read of a file; records have less than 2 KiB.
const maxFile = 1 << 20

var errDamaged = errors.New("its checksum does not fit its content")

func seal(content any) ([]byte, error) {
	body, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s%x%s%s%s", sealHead, sha256.Sum256(body), sealNeck, body, sealTail), nil
}

// unseal decodes a sealed file into content.
func unseal(data []byte, content any) error {
	rest, isHead := bytes.CutPrefix(data, []byte(sealHead))
	sum, rest, isNeck := bytes.Cut(rest, []byte(sealNeck))
	body, isTail := bytes.CutSuffix(rest, []byte(sealTail))
	wanted := sha256.Sum256(body)
	if !isHead || !isNeck || !isTail || string(sum) != hex.EncodeToString(wanted[:]) {
		return errDamaged
	}
	return json.Unmarshal(body, content)
}

// readFile reads a file that is to be a plain one of sensible size.
func readFile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it has %d bytes, more than it can have", info.Size())
	}
	return os.ReadFile(path)
}
