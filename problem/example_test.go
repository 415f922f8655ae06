package problem_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/keelson-go/keelson/problem"
)

func Example() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		p := problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "The user can't be stored.")
		p.Errors = []problem.FieldError{{Pointer: problem.Pointer("email"), Detail: "is missing; give an address like ann@example.org"}}
		problem.Write(w, r, p)
	}
	srv := httptest.NewServer(http.HandlerFunc(handler))
	defer srv.Close()

	resp, err := http.Get(srv.URL + "/users")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	p, err := problem.Decode(resp)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p)
	fmt.Println(p.Instance, p.Errors[0].Pointer, p.Errors[0].Detail)
	// Output:
	// 422 invalid: The user can't be stored.
	// /users /email is missing; give an address like ann@example.org
}
