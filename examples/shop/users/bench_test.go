package users_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/internal/postgrestest"
)

// benchEach runs a benchmark on each database, as durable as in production.
func benchEach(b *testing.B, bench func(b *testing.B, s *users.Store)) {
	server, err := postgrestest.Start(b.Context(), postgrestest.Durable())
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := server.Stop(); err != nil {
			b.Error(err)
		}
	}()
	b.Run("sqlite", func(b *testing.B) { bench(b, openAt(b, address(filepath.Join(b.TempDir(), "users.db")))) })
	b.Run("postgres", func(b *testing.B) { bench(b, openAt(b, server.Database(b))) })
}

// BenchmarkGet is a user by id through the whole service, without the network.
func BenchmarkGet(b *testing.B) { benchEach(b, benchGet) }

func benchGet(b *testing.B, s *users.Store) {
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
func BenchmarkStoreGet(b *testing.B) { benchEach(b, benchStoreGet) }

func benchStoreGet(b *testing.B, s *users.Store) {
	u := create(b, s, "Ann", "ann@example.org")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context(), u.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate is a user on the disk.
func BenchmarkCreate(b *testing.B) { benchEach(b, benchCreate) }

func benchCreate(b *testing.B, s *users.Store) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		create(b, s, "Ann", fmt.Sprintf("ann%d@example.org", i))
	}
}

// BenchmarkCreateAtOnce is as many as there is to gain by several at a time.
func BenchmarkCreateAtOnce(b *testing.B) { benchEach(b, benchCreateAtOnce) }

func benchCreateAtOnce(b *testing.B, s *users.Store) {
	var n atomic.Int64
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			create(b, s, "Ann", fmt.Sprintf("ann%d@example.org", n.Add(1)))
		}
	})
}
