package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/keelson-go/keelson/auth"
)

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	key, err := auth.LoadOrCreateDevKey(filepath.Join(dir, "dev.key"))
	if err != nil {
		panic(err)
	}
	tokens, err := auth.NewJWT(context.Background(), key.JWTConfig())
	if err != nil {
		panic(err)
	}
	defer tokens.Close()

	token, err := key.Mint(auth.TokenRequest{Subject: "ann", Scopes: []string{"orders:read"}})
	if err != nil {
		panic(err)
	}
	request := http.Header{"Authorization": {"Bearer " + token}}
	id, err := tokens.Authenticate(context.Background(), auth.FromHeader(request))
	fmt.Println(id.Subject, id.Scopes, err)

	err = id.Require("orders:write")
	fmt.Println(errors.Is(err, auth.ErrInsufficientScope))
	fmt.Println(auth.Challenge(auth.ErrExpired))
	// Output:
	// ann [orders:read] <nil>
	// true
	// Bearer error="invalid_token", error_description="the token has expired"
}
