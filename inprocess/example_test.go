package inprocess_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/keelson-go/keelson/inprocess"
)

// A handler called through an http.Client, with nothing listening.
func Example() {
	s := inprocess.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
	}))
	c := &http.Client{Transport: s}
	resp, err := c.Get("http://user-service/users/7")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(resp.Status, resp.ContentLength, string(body), err)
	fmt.Println(s.Shutdown(context.Background()))
	_, err = c.Get("http://user-service/users/7")
	fmt.Println(err)
	// Output:
	// 200 OK 12 GET /users/7 <nil>
	// <nil>
	// Get "http://user-service/users/7": dial inprocess: connect: connection refused
}
