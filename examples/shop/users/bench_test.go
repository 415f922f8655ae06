package users_test

import (
	"fmt"
	"testing"
)

// BenchmarkGet is a user by id through the whole service, without the network.
func BenchmarkGet(b *testing.B) {
	s := openTemp(b)
	h, _ := newAPI(b, s)
	u := create(b, s, "Ann", "ann@example.org")
	b.ReportAllocs()
	for b.Loop() {
		if w := call(h, "GET", "/users/"+u.ID, "", ""); w.Code != 200 {
			b.Fatal(answer(w))
		}
	}
}

// BenchmarkStoreGet is the store's part of it.
func BenchmarkStoreGet(b *testing.B) {
	s := openTemp(b)
	u := create(b, s, "Ann", "ann@example.org")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context(), u.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate is a user on the disk.
func BenchmarkCreate(b *testing.B) {
	s := openTemp(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		create(b, s, "Ann", fmt.Sprintf("ann%d@example.org", i))
	}
}
