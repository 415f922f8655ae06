package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

type told struct{ ID, Event, Data string }

func readAll(r io.Reader) (all []told, err error) {
	for e, err := range readEvents(r, func() {}) {
		if err != nil {
			return all, err
		}
		all = append(all, told{e.id, e.event, string(e.data)})
	}
	return all, nil
}

func TestReadEvents(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stream string
		want   []told
	}{
		"two":               {"id: 1-a\nevent: register\ndata: {}\n\nid: 2-a\nevent: deregister\ndata: []\n\n", []told{{"1-a", "register", "{}"}, {"2-a", "deregister", "[]"}}},
		"the id stays":      {"id: 1\ndata: a\n\ndata: b\n\n", []told{{"1", "", "a"}, {"1", "", "b"}}},
		"no space":          {"event:x\ndata:y\n\n", []told{{"", "x", "y"}}},
		"one space goes":    {"data:  y\n\n", []told{{"", "", " y"}}},
		"lines of data":     {"data: a\ndata: b\n\n", []told{{"", "", "a\nb"}}},
		"comments":          {":\n\n: hello\ndata: a\n:\n\n", []told{{"", "", "a"}}},
		"CR LF, and CR":     {"data: a\r\n\r\ndata: b\r\rdata: c\n\n", []told{{"", "", "a"}, {"", "", "b"}, {"", "", "c"}}},
		"no data, no event": {"event: x\n\ndata\n\n", []told{{"", "", ""}}},
		"an id with NUL":    {"id: 1\nid: a\x00\ndata: x\n\n", []told{{"1", "", "x"}}},
		"cut off":           {"data: a\n\ndata: b\n", []told{{"", "", "a"}}},
		"cut off in a line": {"data: a\n\nda", []told{{"", "", "a"}}},
	} {
		for how, r := range map[string]io.Reader{
			"at once": strings.NewReader(tt.stream), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.stream)),
		} {
			got, err := readAll(r)
			if diff := cmp.Diff(tt.want, got); diff != "" || !errors.Is(err, io.EOF) {
				t.Errorf("%s, %s: %v\n%s", name, how, err, diff)
			}
		}
	}
	broken := errors.New("broken")
	if got, err := readAll(io.MultiReader(strings.NewReader("data: a\n\ndata: b\n\n"), iotest.ErrReader(broken))); !errors.Is(err, broken) || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

// However a stream is cut into reads, the same events come of it, and data never
// holds what would end it.
func FuzzReadEvents(f *testing.F) {
	f.Add([]byte("id: 1\nevent: x\ndata: a\r\ndata: b\r\r:\n\n"))
	f.Add([]byte("data\n\n\x00\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, err := readAll(bytes.NewReader(stream))
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		parts, _ := readAll(iotest.OneByteReader(bytes.NewReader(stream)))
		if diff := cmp.Diff(whole, parts); diff != "" {
			t.Error(diff)
		}
		for _, e := range whole {
			if strings.ContainsAny(e.ID+e.Event, "\r\n") || strings.Contains(e.Data, "\r") {
				t.Errorf("%+v", e)
			}
		}
	})
}
