package main

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// list is one page of a list.
type list interface {
	proto.Message
	GetNextPageToken() string
}

// all reads a list page by page and makes one message of it.
func all[L list](read func(token string) (L, error)) (L, error) {
	whole, err := read("")
	if err != nil {
		return whole, err
	}
	m := whole.ProtoReflect()
	first := proto.Clone(whole).ProtoReflect()
	for token := whole.GetNextPageToken(); token != ""; {
		next, err := read(token)
		if err != nil {
			return whole, err
		}
		token = next.GetNextPageToken()
		proto.Merge(whole, next) // appends what repeats
	}
	// A watch behind the first page misses nothing of the others.
	for _, name := range []protoreflect.Name{"epoch", "revision"} {
		if f := m.Descriptor().Fields().ByName(name); f != nil {
			m.Set(f, first.Get(f))
		}
	}
	m.Clear(m.Descriptor().Fields().ByName("next_page_token"))
	return whole, nil
}
