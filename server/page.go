package server

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"sort"

	"google.golang.org/protobuf/proto"
)

const (
	pageLimit = 1000    // items of a page, and how many there are if nobody says
	pageBytes = 1 << 20 // a page ends early when it has so many; clients take up to 4 MiB
)

// list is a kind of list; the name keeps the page tokens of one kind from being
// taken for another's.
type list[T any, M proto.Message] struct {
	name    string
	key     func(T) string // the items are ordered by it, and each has another
	convert func(T) M
}

// pageRequest is what the requests for a page have in common.
type pageRequest interface {
	GetPageSize() int32
	GetPageToken() string
}

// page cuts the page that r asks for out of items. The token of the next one
// holds the last key of this one, so that items that come and go between two
// pages neither shift others out of sight nor show them twice.
func (l list[T, M]) page(items []T, r pageRequest) (page []M, next string, err error) {
	var v violations
	size := int(r.GetPageSize())
	if size < 0 {
		v.add("page_size", "is %d; it must be 0 or more", size)
	}
	last, ok := l.parseToken(r.GetPageToken())
	if !ok {
		v.add("page_token", "is not a token of this list; pass the next_page_token of the page before, or nothing")
	}
	if err := v.err(); err != nil {
		return nil, "", err
	}
	if size == 0 || size > pageLimit {
		size = pageLimit
	}
	if r.GetPageToken() != "" {
		items = items[sort.Search(len(items), func(i int) bool { return l.key(items[i]) > last }):]
	}
	page = make([]M, 0, min(size, len(items)))
	for i, bytes := 0, 0; i < len(items) && i < size && bytes < pageBytes; i++ {
		page = append(page, l.convert(items[i]))
		bytes += proto.Size(page[i])
	}
	if n := len(page); n < len(items) {
		next = l.token(l.key(items[n-1]))
	}
	return page, next, nil
}

// token is a page token: a checksum, so that a mangled one is noticed, and the
// last key. The checksum covers the list's name. It is no protection: a token
// gives away nothing and opens nothing.
func (l list[T, M]) token(key string) string {
	sum := crc32.ChecksumIEEE([]byte(l.name + "\x00" + key))
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, sum), key...))
}

// parseToken is the inverse of token; no token at all is fine.
func (l list[T, M]) parseToken(token string) (key string, ok bool) {
	if token == "" {
		return "", true
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(data) < crc32.Size {
		return "", false
	}
	key = string(data[crc32.Size:])
	return key, l.token(key) == token // the one spelling out of several that decode alike
}
