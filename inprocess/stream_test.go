package inprocess_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/inprocess"
)

// Both sides may talk at the same time.
func TestConversation(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		rt := w.start(t, func(w http.ResponseWriter, r *http.Request) {
			out := http.NewResponseController(w)
			if err := out.EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			if err := out.Flush(); err != nil {
				t.Error(err)
			}
			for lines := bufio.NewScanner(r.Body); lines.Scan(); {
				fmt.Fprintf(w, "%s, too\n", lines.Text())
				if err := out.Flush(); err != nil {
					t.Error(err)
				}
			}
		})
		in, out := io.Pipe()
		resp, err := rt.RoundTrip(request(t, "POST", "/", in))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answers := bufio.NewScanner(resp.Body)
		for _, word := range []string{"one", "two", "three"} {
			if _, err := fmt.Fprintln(out, word); err != nil {
				t.Fatal(err)
			}
			if !answers.Scan() || answers.Text() != word+", too" {
				t.Fatalf("answer %q, %v", answers.Text(), answers.Err())
			}
		}
		out.Close()
		if answers.Scan() || answers.Err() != nil {
			t.Errorf("at the end: %q, %v", answers.Text(), answers.Err())
		}
	})
}

// A handler does not wait for its caller to read an answer that is not large, but does
// not get far ahead with one that is.
func TestBackPressureOfAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var written atomic.Int64
		returned := make(chan struct{})
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			defer close(returned)
			for range 20 {
				n, err := w.Write(make([]byte, 3000))
				written.Add(int64(n))
				if err != nil {
					t.Errorf("write: %v", err)
				}
			}
			if r.URL.Path == "/small" {
				return
			}
			for range 100 {
				n, _ := w.Write(make([]byte, 3000))
				written.Add(int64(n))
			}
		})
		small, err := s.RoundTrip(request(t, "GET", "/small", nil))
		if err != nil {
			t.Fatal(err)
		}
		<-returned // nobody has read yet
		if b, err := io.ReadAll(small.Body); len(b) != 60_000 || err != nil {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		small.Body.Close()
		returned = make(chan struct{})
		written.Store(0)
		large, err := s.RoundTrip(request(t, "GET", "/large", nil))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := written.Load(); n < 60_000 || n > 64<<10 {
			t.Errorf("%d bytes were written with nobody reading, want some 64 KiB", n)
		}
		if b, err := io.ReadAll(large.Body); len(b) != 360_000 || err != nil {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		large.Body.Close()
		<-returned
	})
}

// A caller's body is read as the handler reads it, and not far ahead.
func TestBackPressureOfRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := make(chan struct{})
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			<-read
			if n, err := io.Copy(io.Discard, r.Body); n != 1_000_000 || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
		body := &counting{left: 1_000_000}
		done := make(chan struct{})
		go func() {
			defer close(done)
			do(t, s, request(t, "POST", "/", body))
		}()
		synctest.Wait()
		if n := body.read.Load(); n == 0 || n > 96<<10 {
			t.Errorf("%d bytes were taken that nobody has asked for", n)
		}
		close(read)
		<-done
		if !body.closed.Load() {
			t.Error("the body is not closed")
		}
	})
}

// counting is a body that knows what was read of it.
type counting struct {
	left   int64
	read   atomic.Int64
	closed atomic.Bool
}

func (c *counting) Read(p []byte) (int, error) {
	n := min(int64(len(p)), c.left-c.read.Load())
	if c.read.Add(n); n == 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

func (c *counting) Close() error { c.closed.Store(true); return nil }

// With "Expect: 100-continue" the body is not read before the handler asks, nor ever if
// it doesn't.
func TestExpect(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		rt := w.start(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/refuse" {
				w.WriteHeader(http.StatusExpectationFailed)
				return
			}
			_, _ = io.Copy(w, r.Body)
		})
		for path, want := range map[string]int64{"/take": 1000, "/refuse": 0} {
			body := &counting{left: 1000}
			req := request(t, "POST", path, body)
			req.Header.Set("Expect", "100-continue")
			do(t, rt, req)
			eventually(t, "the body is closed", body.closed.Load)
			if n := body.read.Load(); n != want {
				t.Errorf("%s: %d bytes of the body were read, want %d", path, n, want)
			}
		}
	})
}

// A handler that reads a body which doesn't come is told when the caller gives up; and
// a handler that answers without reading is not held up by the body.
func TestBodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		failed := make(chan error, 1)
		reading := make(chan struct{})
		rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/unread" {
				return
			}
			_, _ = io.ReadFull(r.Body, make([]byte, 3))
			close(reading)
			_, err := r.Body.Read(make([]byte, 1))
			failed <- err
		})
		in, out := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _ = out.Write([]byte("abc"))
			<-reading
			cancel()
			if w.name == "loopback" {
				out.CloseWithError(errors.New("no more")) // there RoundTrip waits for the body, whatever its context says
			}
		}()
		if _, err := rt.RoundTrip(request(t, "POST", "/", in).WithContext(ctx)); err == nil || w.name != "loopback" && !errors.Is(err, context.Canceled) {
			t.Errorf("the caller got %v", err)
		}
		if err := wait(t, failed, "reading ends"); err == nil || err == io.EOF {
			t.Errorf("the handler read %v", err)
		}
		out.Close()
		if w.name == "loopback" {
			return // likewise, in spite of the answer
		}
		in, out = io.Pipe()
		defer out.Close()
		do(t, rt, request(t, "POST", "/unread", in))
	})
}

// A caller's body that fails is the caller's error, and no whole body to the handler.
func TestBodyThatFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	for name, change := range map[string]func(r *http.Request){
		"once":  func(*http.Request) {},
		"again": func(r *http.Request) { r.GetBody = func() (io.ReadCloser, error) { return r.Body, nil } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, w way) {
				failed := make(chan error, 1)
				rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) {
					_, err := io.ReadAll(r.Body)
					failed <- err
				})
				req := request(t, "POST", "/", io.MultiReader(strings.NewReader("abc"), failing{broken}))
				change(req)
				if _, err := rt.RoundTrip(req); !errors.Is(err, broken) {
					t.Errorf("the caller got %v", err)
				}
				if err := wait(t, failed, "reading ends"); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the handler read %v", err)
				}
			})
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A body can be read again after neither Close nor the handler's end.
func TestBodyAfterItsEnd(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, w way) {
		late := make(chan io.Reader, 1)
		rt := w.start(t, func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/close" {
				r.Body.Close()
				if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Errorf("after Close: %v", err)
				}
			}
			late <- r.Body
		})
		for _, path := range []string{"/", "/close"} {
			for _, body := range []io.Reader{strings.NewReader("abc"), stream{strings.NewReader("abc")}} {
				do(t, rt, request(t, "POST", path, body))
				if _, err := (<-late).Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Errorf("%s: after the handler's end: %v", path, err)
				}
			}
		}
	})
}

// Deadlines of http.ResponseController end waiting, and are not prolonged once over.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		results := make(chan error, 2)
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			set, use := control.SetReadDeadline, func() (int, error) { return r.Body.Read(make([]byte, 1)) }
			if r.URL.Path == "/write" {
				set, use = control.SetWriteDeadline, func() (int, error) { return w.Write(make([]byte, 100<<10)) }
			}
			began := time.Now()
			for _, d := range []time.Duration{time.Minute, 0, time.Second} {
				var at time.Time
				if d > 0 {
					at = began.Add(d)
				}
				if err := set(at); err != nil {
					t.Error(err)
				}
			}
			_, err := use()
			if took := time.Since(began); took != time.Second {
				t.Errorf("%s: waited %v", r.URL.Path, took)
			}
			results <- err
			_ = set(time.Time{})
			_, err = use()
			results <- err
		})
		for _, path := range []string{"/read", "/write"} {
			in, out := io.Pipe()
			resp, err := s.RoundTrip(request(t, "POST", path, in))
			for range 2 {
				if err := <-results; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: %v", path, err)
				}
			}
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if path == "/write" && !errors.Is(err, io.ErrUnexpectedEOF) || path == "/read" && err != nil {
				t.Errorf("%s: the caller got %v", path, err)
			}
			out.Close()
		}
		late := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now())
			fmt.Fprint(w, "too late")
		})
		if _, err := late.RoundTrip(request(t, "GET", "/", nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("an answer after its deadline: %v", err)
		}
	})
}

// Whatever the pieces in which bodies are written and read, they come through whole
// and in order, both ways at once.
func TestBodiesComeThrough(t *testing.T) {
	t.Parallel()
	s := inprocess.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := 0
		if _, err := fmt.Sscan(r.Header.Get("X-Size"), &size); err != nil {
			panic(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r.Body}, make([]byte, size)); err != nil {
			panic(err)
		}
	}))
	defer s.Close()
	rapid.Check(t, func(t *rapid.T) {
		data := bytes.Repeat([]byte("0123456789abcde"), rapid.IntRange(0, 20_000).Draw(t, "fifteens"))
		size := rapid.SampledFrom([]int{1000, 2048, 2049, 4096, 32 << 10, 65 << 10, 200 << 10})
		body := io.Reader(bytes.NewReader(data))
		if rapid.Bool().Draw(t, "streamed") {
			body = stream{body}
		}
		req, err := http.NewRequestWithContext(context.Background(), "POST", "http://users/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Size", fmt.Sprint(size.Draw(t, "handler")))
		resp, err := s.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var got bytes.Buffer
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{resp.Body}, make([]byte, size.Draw(t, "caller"))); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), data) {
			t.Fatalf("%d bytes came of %d, or others", got.Len(), len(data))
		}
	})
}
