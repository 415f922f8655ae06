package embedded_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
)

func TestOneProcessAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, lines := child(t, "hold", dir)
	if !lines.Scan() {
		t.Fatal("the holder did not start")
	}
	second, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
	locked, ok := errors.AsType[*embedded.LockedError](err)
	if !ok {
		if second != nil {
			stop(t, second)
		}
		t.Fatalf("got %v, want a LockedError", err)
	}
	if locked.PID != cmd.Process.Pid || locked.Dir != dir || time.Since(locked.Since).Abs() > time.Minute {
		t.Errorf("got %+v, want process %d and %s, just now", locked, cmd.Process.Pid, dir)
	}
	// The kernel frees the lock whatever ends the holder.
	cmd.Process.Kill()
	cmd.Wait()
	s := start(t, embedded.Config{Dir: dir})
	if _, err := embedded.Start(t.Context(), embedded.Config{Dir: dir}); err == nil {
		t.Error("this process opened the directory twice")
	} else if locked, ok := errors.AsType[*embedded.LockedError](err); !ok || locked.PID != os.Getpid() {
		t.Errorf("got %v, want a LockedError of ourselves", err)
	}
	stop(t, s)
	start(t, embedded.Config{Dir: dir})
}

func TestLockedByWhoSaysNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, embedded.Config{Dir: dir})
	for _, text := range []string{"", "pid", "pid x\n", "pid -4\n", strings.Repeat("9", 1000)} {
		if err := os.WriteFile(filepath.Join(dir, "keelson.lock"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
		locked, ok := errors.AsType[*embedded.LockedError](err)
		if !ok || locked.PID != 0 || !strings.Contains(err.Error(), "another process") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	connect(t, start(t, embedded.Config{Dir: dir}))
	for _, path := range []string{dir, filepath.Join(dir, "keelson.lock")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
}

// filled is a directory with one stream S of ten messages and a consumer C that
// has acknowledged three of them.
func filled(t *testing.T) (dir, stream string) {
	t.Helper()
	dir = t.TempDir()
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	e, err := s.Connect(t.Context(), "fill")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	js := e.JetStream()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := js.Publish(t.Context(), "s", []byte("message")); err != nil {
			t.Fatal(err)
		}
	}
	c, err := js.CreateConsumer(t.Context(), "S", jetstream.ConsumerConfig{Durable: "C", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		m, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return dir, filepath.Join(dir, "jetstream", "KEELSON", "streams", "S")
}

// The server only warns of a stream it can't read and goes on without. Here it
// is an error that changes nothing.
func TestDamageIsToldNotWiped(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(stream string) error{
		"settings are garbage": func(s string) error { return os.WriteFile(filepath.Join(s, "meta.inf"), []byte("{garbage"), 0o600) },
		"settings are empty":   func(s string) error { return os.Truncate(filepath.Join(s, "meta.inf"), 0) },
		"settings are gone":    func(s string) error { return os.Remove(filepath.Join(s, "meta.inf")) },
		"settings differ without having been replaced": func(s string) error {
			return errors.Join(
				edit(filepath.Join(s, "meta.inf"), `"max_msgs":-1`, `"max_msgs":1000`),
				os.Chtimes(filepath.Join(s, "meta.inf"), time.Time{}, time.Now().Add(-time.Hour)))
		},
		"checksum differs": func(s string) error { return os.WriteFile(filepath.Join(s, "meta.sum"), []byte("0000"), 0o600) },
		"checksum is gone": func(s string) error { return os.Remove(filepath.Join(s, "meta.sum")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, stream := filled(t)
			block, err := os.ReadFile(filepath.Join(stream, "msgs", "1.blk"))
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(stream); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the first refusal must not have "repaired" it
				s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
				if err == nil {
					stop(t, s)
				}
				corrupt, ok := errors.AsType[*embedded.CorruptError](err)
				if !ok || len(corrupt.Streams) != 1 || filepath.Join(dir, corrupt.Streams[0]) != stream {
					t.Fatalf("got %v, want a CorruptError naming %s", err, stream)
				}
			}
			if now, err := os.ReadFile(filepath.Join(stream, "msgs", "1.blk")); err != nil || string(now) != string(block) {
				t.Errorf("the messages were touched: %v", err)
			}
			// What the error says to do works.
			if err := os.Rename(stream, filepath.Join(t.TempDir(), "S")); err != nil {
				t.Fatal(err)
			}
			connect(t, start(t, embedded.Config{Dir: dir}))
		})
	}
}

// Damaged messages can't be brought back; the log tells, the others stay. After
// an orderly stop there is nothing to tell.
func TestDamagedMessagesAreTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		damage func(block []byte) []byte
		index  bool // the file with the server's last view is there
		told   bool
		left   uint64
	}{
		"none":                  {func(b []byte) []byte { return b }, true, false, 10},
		"none, rebuilt":         {func(b []byte) []byte { return b }, false, false, 10},
		"torn end":              {func(b []byte) []byte { return b[:len(b)-3] }, false, true, 9},
		"middle":                {garble, true, true, 5},
		"middle, rebuilt":       {garble, false, true, 5},
		"garbage after the end": {func(b []byte) []byte { return append(b, "garbage"...) }, false, true, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, stream := filled(t)
			path := filepath.Join(stream, "msgs", "1.blk")
			block, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, test.damage(block), 0o600); err != nil {
				t.Fatal(err)
			}
			if !test.index {
				if err := os.Remove(filepath.Join(stream, "msgs", "index.db")); err != nil {
					t.Fatal(err)
				}
			}
			var out lockedBuffer
			e := connect(t, start(t, embedded.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&out, nil))}))
			found, err := e.JetStream().Stream(t.Context(), "S")
			if err != nil {
				t.Fatal(err)
			}
			if n := found.CachedInfo().State.Msgs; n != test.left {
				t.Errorf("%d messages left, want %d", n, test.left)
			}
			if told := strings.Contains(out.String(), "level=ERROR") && strings.Contains(out.String(), "stream=S"); told != test.told {
				t.Errorf("told: %v, want %v: %s", told, test.told, out.String())
			}
		})
	}
}

func garble(block []byte) []byte {
	for i := len(block) / 2; i < len(block)/2+40; i++ {
		block[i] ^= 0xff
	}
	return block
}

// A kill between the two files of a change of settings leaves new settings
// with the old checksum: the change is completed and nothing is lost.
func TestUnfinishedChangeIsCompleted(t *testing.T) {
	t.Parallel()
	dir, stream := filled(t)
	settings := filepath.Join(stream, "meta.inf")
	if err := edit(settings, `"max_msgs":-1`, `"max_msgs":1000`); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(settings, time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.Connect(t.Context(), "look")
		if err != nil {
			t.Fatal(err)
		}
		found, err := e.JetStream().Stream(t.Context(), "S")
		if err != nil {
			t.Fatal(err)
		}
		if info := found.CachedInfo(); info.Config.MaxMsgs != 1000 || info.State.Msgs != 10 {
			t.Errorf("got %d messages of at most %d, want 10 of 1000", info.State.Msgs, info.Config.MaxMsgs)
		}
		e.Close()
		stop(t, s)
	}
}

func edit(path, from, to string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), from) {
		return errors.New(path + " has no " + from)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600)
}

// A kill between the two files of a creation leaves one of them. The next
// creation must then be a whole one: the server would never write the missing
// file, and pass over the stream or consumer at each start from then on.
func TestUnfinishedCreationIsMadeAnew(t *testing.T) {
	t.Parallel()
	dir, stream := filled(t)
	consumer := filepath.Join(stream, "obs", "C")
	for _, path := range []string{filepath.Join(consumer, "meta.sum"), filepath.Join(consumer, "o.dat")} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	bucket := filepath.Join(dir, "jetstream", "KEELSON", "streams", "KV_"+engine.LeasesBucket)
	if err := os.RemoveAll(filepath.Join(bucket, "msgs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bucket, "meta.sum")); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		e, err := s.Connect(t.Context(), "again")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		kv, err := e.JetStream().KeyValue(t.Context(), engine.LeasesBucket)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			_, err = kv.PutString(t.Context(), "k", "v")
		} else {
			_, err = kv.Get(t.Context(), "k")
		}
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if _, err := e.JetStream().Consumer(t.Context(), "S", "C"); (err == nil) != (round > 0) {
			t.Errorf("round %d: consumer before it is created: %v", round, err)
		}
		c, err := e.JetStream().CreateOrUpdateConsumer(t.Context(), "S", jetstream.ConsumerConfig{Durable: "C", AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatal(err)
		}
		if round > 0 && c.CachedInfo().AckFloor.Stream != 1 {
			t.Errorf("round %d: the consumer has forgotten its acknowledgement: %+v", round, c.CachedInfo().AckFloor)
		}
		if round == 0 {
			m, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		e.Close()
		stop(t, s)
	}
}
