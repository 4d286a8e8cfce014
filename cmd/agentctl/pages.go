package main

import "google.golang.org/protobuf/proto"

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
	for token := whole.GetNextPageToken(); token != ""; {
		next, err := read(token)
		if err != nil {
			return whole, err
		}
		token = next.GetNextPageToken()
		proto.Merge(whole, next) // appends what repeats
	}
	m := whole.ProtoReflect()
	m.Clear(m.Descriptor().Fields().ByName("next_page_token"))
	return whole, nil
}
