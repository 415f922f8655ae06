package users_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/examples/shop/users"
)

func TestStore(t *testing.T) {
	t.Parallel()
	onEach(t, testStore)
}

func testStore(t *testing.T, b backend) {
	s, ctx := openAt(t, b.address(t)), t.Context()
	before := time.Now().Truncate(time.Microsecond)
	ann := create(t, s, "Ann", "Ann@example.org")
	bob := create(t, s, "Bob", "bob@example.org")
	if id, err := uuid.Parse(ann.ID); err != nil || id.Version() != 7 || bob.ID <= ann.ID {
		t.Errorf("ids %s, %s: %v", ann.ID, bob.ID, err)
	}
	if ann.CreatedAt.Before(before) || ann.CreatedAt.After(time.Now()) || ann.UpdatedAt != ann.CreatedAt || ann.CreatedAt.Location() != time.UTC {
		t.Errorf("created %v, updated %v", ann.CreatedAt, ann.UpdatedAt)
	}

	if _, err := s.Create(ctx, "Other", "aNN@EXAMPLE.org"); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("create with a taken email: %v", err)
	}
	if _, err := s.Replace(ctx, bob.ID, "Bob", "ANN@example.org"); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("replace with a taken email: %v", err)
	}
	changed, err := s.Replace(ctx, ann.ID, "Anna", "ANN@example.org") // her own, in another case
	if err != nil {
		t.Fatal(err)
	}
	want := users.User{ID: ann.ID, Name: "Anna", Email: "ANN@example.org", CreatedAt: ann.CreatedAt, UpdatedAt: changed.UpdatedAt}
	if diff := cmp.Diff(want, changed); diff != "" || changed.UpdatedAt.Before(ann.UpdatedAt) {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if got, err := s.Get(ctx, ann.ID); err != nil || got != changed {
		t.Errorf("Get = %v, %v", got, err)
	}
	if diff := cmp.Diff([]users.User{changed, bob}, list(t, s)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}

	if err := s.Delete(ctx, ann.ID); err != nil {
		t.Error(err)
	}
	_, getErr := s.Get(ctx, ann.ID)
	_, replaceErr := s.Replace(ctx, ann.ID, "Ann", "ann@example.org")
	for name, err := range map[string]error{"get": getErr, "replace": replaceErr, "delete": s.Delete(ctx, ann.ID)} {
		if !errors.Is(err, users.ErrNotFound) {
			t.Errorf("%s a deleted user: %v", name, err)
		}
	}
	if after, err := s.List(ctx, ann.ID, 10); err != nil || len(after) != 1 || after[0] != bob {
		t.Errorf("list after a deleted one = %v, %v", after, err)
	}
	create(t, s, "Ann again", "ann@example.org")
}

// A clock that is set back does not let an update look older than the last one.
func TestReplaceClockBack(t *testing.T) {
	t.Parallel()
	onEach(t, testReplaceClockBack)
}

func testReplaceClockBack(t *testing.T, b backend) {
	s := openAt(t, b.address(t))
	u := create(t, s, "Ann", "ann@example.org")
	future := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	users.Exec(t, s, fmt.Sprintf(b.setTime, future.UnixMicro()))
	got, err := s.Replace(t.Context(), u.ID, "Ann", "ann@example.org")
	if err != nil || !got.UpdatedAt.Equal(future) {
		t.Errorf("updatedAt = %v, %v, want %v", got.UpdatedAt, err, future)
	}
}

func TestPersistence(t *testing.T) {
	t.Parallel()
	onEach(t, testPersistence)
}

// migrations counts how often they were recorded: each once.
const migrations = "SELECT count(*) FROM goose_db_version WHERE version_id > 0"

func testPersistence(t *testing.T, b backend) {
	address := b.address(t)
	var want []users.User
	for i := range 3 { // each opening runs the migrations
		s, err := users.Open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(len(want), len(list(t, s))); diff != "" {
			t.Errorf("opening %d (-want +got):\n%s", i, diff)
		}
		want = append(want, create(t, s, "U", fmt.Sprintf("u%d@example.org", i)))
		if n := users.One[int](t, s, migrations); n != 2 {
			t.Errorf("migrations were recorded %d times", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, list(t, openAt(t, address))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Instances that start at once on a new database set it up once, and then write side
// by side without a lost or a doubled user.
func TestTwoStores(t *testing.T) {
	t.Parallel()
	onEach(t, testTwoStores)
}

func testTwoStores(t *testing.T, b backend) {
	const stores, writes = 4, 25
	address := b.address(t)
	var wg sync.WaitGroup
	var taken [writes]int
	var mu sync.Mutex
	for i := range stores {
		wg.Go(func() {
			s, err := users.Open(t.Context(), address)
			if err != nil {
				t.Errorf("store %d: %v", i, err)
				return
			}
			defer s.Close()
			for j := range writes {
				if _, err := s.Create(t.Context(), "Own", fmt.Sprintf("own-%d-%d@example.org", i, j)); err != nil {
					t.Errorf("store %d: %v", i, err)
				}
				_, err := s.Create(t.Context(), "Shared", fmt.Sprintf("Shared-%d@example.org", j))
				if err == nil {
					mu.Lock()
					taken[j]++
					mu.Unlock()
				} else if !errors.Is(err, users.ErrEmailTaken) {
					t.Errorf("store %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	s := openAt(t, address)
	if n := len(list(t, s)); n != stores*writes+writes {
		t.Errorf("%d users", n)
	}
	for j, n := range taken {
		if n != 1 {
			t.Errorf("email %d was given %d times", j, n)
		}
	}
	if n := users.One[int](t, s, migrations); n != 2 {
		t.Errorf("migrations were recorded %d times", n)
	}
}

// Waiting for a lock ends with the context, for starting as for writing, and
// leaves the store in order.
func TestCancellation(t *testing.T) {
	t.Parallel()
	onEach(t, testCancellation)
}

func testCancellation(t *testing.T, b backend) {
	address := b.address(t)
	holder, s := openAt(t, address), openAt(t, address)
	release := users.HoldWrite(t, holder)
	started := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 { // one waits in the database, the others behind it
		wg.Go(func() {
			if _, err := s.Create(ctx, "Ann", "ann@example.org"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Create = %v", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(started); took > 4*time.Second {
		t.Errorf("giving up took %v", took)
	}
	if all := list(t, s); len(all) != 0 { // reads do not wait for a writer
		t.Errorf("cancelled writes left %v", all)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.List(canceled, "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("List = %v", err)
	}
	release()
	create(t, s, "Ann", "ann@example.org")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		for _, f := range b.faults {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				testCheck(t, b, f)
			})
		}
	})
}

func testCheck(t *testing.T, b backend, f fault) {
	address := b.address(t)
	s := openAt(t, address)
	u := create(t, s, "Ann", "ann@example.org")
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.cause(t, s, address)
	if err := fill(t, s); !errors.Is(err, users.ErrUnavailable) {
		t.Errorf("Create = %v", err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, users.ErrUnavailable) {
		t.Errorf("Check = %v", err)
	}
	if got, err := s.Get(t.Context(), u.ID); err != nil || got != u {
		t.Errorf("reading = %v, %v", got, err)
	}
	f.mend(t, s, address)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check, mended = %v", err)
	}
	if n := users.One[int](t, s, "SELECT count(*) FROM users WHERE length(name) > 100"); n != 0 {
		t.Error("the check left something")
	}
}

// Users and pages of any number: a walk meets each once, in order of creation,
// whoever is deleted behind or created ahead of it.
func TestListWalk(t *testing.T) {
	t.Parallel()
	onEach(t, testListWalk)
}

func testListWalk(t *testing.T, b backend) {
	s := openAt(t, b.quick(t))
	rapid.Check(t, func(rt *rapid.T) {
		users.Exec(t, s, "DELETE FROM users")
		var want []string
		add := func() {
			u, err := s.Create(t.Context(), "U", fmt.Sprintf("u%d@example.org", len(want)))
			if err != nil {
				rt.Fatal(err)
			}
			want = append(want, u.ID)
		}
		for range rapid.IntRange(0, 12).Draw(rt, "users") {
			add()
		}
		size := rapid.IntRange(1, 14).Draw(rt, "page")
		var got []string
		for after := ""; ; {
			page, err := s.List(t.Context(), after, size)
			if err != nil {
				rt.Fatal(err)
			}
			if len(page) > size {
				rt.Fatalf("a page of %d has %d", size, len(page))
			}
			for _, u := range page {
				got = append(got, u.ID)
			}
			if len(page) < size {
				break
			}
			after = got[len(got)-1]
			if rapid.Bool().Draw(rt, "delete the last one") {
				if err := s.Delete(t.Context(), after); err != nil {
					rt.Fatal(err)
				}
			}
			if len(want) < 24 && rapid.Bool().Draw(rt, "create") {
				add()
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("walk (-want +got):\n%s", diff)
		}
	})
}

// Users appear in the order of their ids, whoever creates them and at the same
// time: a reader who goes on after the last id he has seen misses none.
func TestOrder(t *testing.T) {
	t.Parallel()
	onEach(t, testOrder)
}

func testOrder(t *testing.T, b backend) {
	const stores, writers, writes = 2, 3, 30
	address := b.address(t)
	reader := openAt(t, address)
	var wg sync.WaitGroup
	for i := range stores {
		s := openAt(t, address)
		for j := range writers {
			wg.Go(func() {
				for k := range writes {
					if _, err := s.Create(t.Context(), "U", fmt.Sprintf("u%d-%d-%d@example.org", i, j, k)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	written := make(chan struct{})
	go func() { wg.Wait(); close(written) }()
	var seen []users.User
	for after, last := "", false; !last; {
		select {
		case <-written:
			last = true // one more round sees all
		default:
		}
		for {
			page, err := reader.List(t.Context(), after, 7)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, page...)
			if len(page) == 0 {
				break
			}
			after = page[len(page)-1].ID
		}
	}
	if diff := cmp.Diff(list(t, reader), seen); diff != "" || len(seen) != stores*writers*writes {
		t.Errorf("%d users seen; (-there are +seen):\n%s", len(seen), diff)
	}
	if !slices.IsSortedFunc(seen, func(a, b users.User) int { return a.CreatedAt.Compare(b.CreatedAt) }) {
		t.Error("the times of creation are in another order than the ids")
	}
}
