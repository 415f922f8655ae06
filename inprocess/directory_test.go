package inprocess_test

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/keelson-go/keelson/inprocess"
)

func TestDirectory(t *testing.T) {
	t.Parallel()
	var d inprocess.Directory
	answering := func(text string) *inprocess.Server {
		return serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
	if d.Local("users-1") != nil {
		t.Error("an empty directory knows an instance")
	}
	removeUsers := d.Add("users-1", "users", answering("users"))
	d.Add("orders-1", "orders", answering("orders"))
	if _, body := do(t, d.Local("users-1"), request(t, "GET", "/", nil)); body != "users" {
		t.Errorf("users-1 answers %q", body)
	}
	// Of the same id, but somewhere else.
	if _, err := d.Local("orders-1").RoundTrip(request(t, "GET", "/", nil)); !errors.Is(err, http.ErrSkipAltProtocol) {
		t.Errorf("a request for another host: %v", err)
	}
	remove := []func(){
		d.Add("users-1", "other", answering("other")),
		d.Add("users-1", "third", answering("third")),
	}
	if d.Local("users-1") != nil {
		t.Error("of several with one id, the directory chose one")
	}
	for _, r := range remove {
		r()
		r()
	}
	if d.Local("users-1") == nil {
		t.Error("the one that is left is not known")
	}
	removeUsers()
	if d.Local("users-1") != nil || d.Local("orders-1") == nil {
		t.Error("removing one took another")
	}
	var none *inprocess.Directory
	none.Add("users-1", "users", nil)()
	if none.Local("users-1") != nil {
		t.Error("no directory knows an instance")
	}
}
