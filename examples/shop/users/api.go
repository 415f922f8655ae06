package users

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/keelson-go/keelson/idempotency"
	"github.com/keelson-go/keelson/openapi"
	"github.com/keelson-go/keelson/problem"
)

const (
	maxName  = 100     // characters
	maxEmail = 254     // bytes; RFC 5321 allows no longer path
	maxBody  = 8 << 10 // bytes; the longest user, all of it escaped, has less than 3 KiB
)

// UserFields is what a client says about a user.
type UserFields struct {
	Name  string `json:"name" minLength:"1" doc:"1 to 100 characters; spaces around it are removed"`
	Email string `json:"email" format:"email" maxLength:"254" doc:"An address in ASCII, like ann@example.org. No two users have the same, whatever its case."`
}

// normalize trims the name and tells what is wrong beyond what the schema says.
func (f *UserFields) normalize() error {
	var wrong []problem.FieldError
	fail := func(field, detail string) {
		wrong = append(wrong, problem.FieldError{Pointer: problem.Pointer(field), Detail: detail})
	}
	f.Name = strings.TrimSpace(f.Name)
	switch n := utf8.RuneCountInString(f.Name); {
	case n == 0:
		fail("name", "is empty: give 1 to 100 characters")
	case n > maxName:
		fail("name", "is longer than 100 characters")
	case strings.ContainsFunc(f.Name, unicode.IsControl):
		fail("name", "has control characters, such as a line break: remove them")
	}
	if !isAddress(f.Email) {
		fail("email", "is not an address of at most 254 ASCII characters: give one like ann@example.org")
	}
	if len(wrong) > 0 {
		return openapi.Invalid(wrong...)
	}
	return nil
}

// isAddress reports whether s is a plain address: no name, brackets, comments,
// quotes or spaces around it.
func isAddress(s string) bool {
	if len(s) > maxEmail || strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) {
		return false
	}
	a, err := mail.ParseAddress(s)
	return err == nil && a.Name == "" && a.Address == s
}

type (
	oneInput struct {
		ID string `path:"id" doc:"The user's id"`
	}
	listInput struct {
		Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Users a page"`
		After string `query:"after" format:"uuid" doc:"The last id of the page before"`
	}
	createInput struct {
		// Key is for the document: the middleware around all operations reads it.
		Key  string `header:"Idempotency-Key" doc:"A new random value, such as a UUID, for each user. The same request with the same key is answered as before, and makes no second user."`
		Body UserFields
	}
	replaceInput struct {
		ID   string `path:"id" doc:"The user's id"`
		Body UserFields
	}
	userOutput struct {
		Body User
	}
	createdOutput struct {
		Location string `header:"Location" doc:"Path of the new user"`
		Body     User
	}
	listOutput struct {
		Link string `header:"Link" doc:"The next page, rel=\"next\"; absent on the last one"`
		Body []User `nullable:"false"`
	}
)

// handlers are the operations of the API.
type handlers struct {
	store *Store
	log   *slog.Logger
}

// register adds all operations to mux.
func register(mux *http.ServeMux, version string, store *Store, log *slog.Logger) {
	h := handlers{store: store, log: log}
	api := openapi.New(mux, "Users", version, openapi.MaxBodyBytes(maxBody), openapi.OnError(h.failed))
	op := func(id, method, path, summary string, status int, errors ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, DefaultStatus: status, Errors: errors, Tags: []string{"users"}}
	}
	huma.Register(api, op("list-users", http.MethodGet, "/users", "List users in the order of their creation", 200, 422, 503), h.list)
	huma.Register(api, op("get-user", http.MethodGet, "/users/{id}", "Get a user", 200, 404, 503), h.get)
	huma.Register(api, op("create-user", http.MethodPost, "/users", "Create a user", 201, 400, 409, 413, 415, 422, 503), h.create)
	huma.Register(api, op("replace-user", http.MethodPut, "/users/{id}", "Replace a user's name and email", 200, 400, 404, 409, 413, 415, 422, 503), h.replace)
	huma.Register(api, op("delete-user", http.MethodDelete, "/users/{id}", "Delete a user", 204, 404, 503), h.delete)
}

func (h handlers) list(ctx context.Context, in *listInput) (*listOutput, error) {
	after := ""
	if in.After != "" {
		id, err := uuid.Parse(in.After)
		if err != nil {
			return nil, openapi.Invalid(problem.FieldError{Pointer: "#query/after", Detail: "is no id: give the last one of the page before"})
		}
		after = id.String()
	}
	users, err := h.store.List(ctx, after, in.Limit+1)
	if err != nil {
		return nil, h.refuse(ctx, err)
	}
	out := &listOutput{Body: users}
	if len(users) > in.Limit {
		out.Body = users[:in.Limit]
		out.Link = fmt.Sprintf(`</users?limit=%d&after=%s>; rel="next"`, in.Limit, users[in.Limit-1].ID)
	}
	return out, nil
}

func (h handlers) get(ctx context.Context, in *oneInput) (*userOutput, error) {
	u, err := h.store.Get(ctx, in.ID)
	if err != nil {
		return nil, h.refuse(ctx, err)
	}
	return &userOutput{Body: u}, nil
}

func (h handlers) create(ctx context.Context, in *createInput) (*createdOutput, error) {
	if err := in.Body.normalize(); err != nil {
		return nil, err
	}
	u, err := h.store.Create(ctx, in.Body.Name, in.Body.Email)
	if err != nil {
		return nil, h.refuse(ctx, err)
	}
	return &createdOutput{Location: "/users/" + u.ID, Body: u}, nil
}

func (h handlers) replace(ctx context.Context, in *replaceInput) (*userOutput, error) {
	if err := in.Body.normalize(); err != nil {
		return nil, err
	}
	u, err := h.store.Replace(ctx, in.ID, in.Body.Name, in.Body.Email)
	if err != nil {
		return nil, h.refuse(ctx, err)
	}
	return &userOutput{Body: u}, nil
}

func (h handlers) delete(ctx context.Context, in *oneInput) (*struct{}, error) {
	if err := h.store.Delete(ctx, in.ID); err != nil {
		return nil, h.refuse(ctx, err)
	}
	return nil, nil
}

// refuse makes what the client may know of a store's error into a problem. The
// rest stays as it is, and goes to failed.
func (h handlers) refuse(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return problem.New(http.StatusNotFound, problem.CodeNotFound, "There is no user with this id.")
	case errors.Is(err, ErrEmailTaken):
		p := problem.New(http.StatusConflict, problem.CodeConflict, "Another user has this email address.")
		p.Errors = []problem.FieldError{{Pointer: "/email", Detail: "is taken"}}
		return p
	case errors.Is(err, idempotency.ErrLost):
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "This took so long that another request with the same Idempotency-Key was begun. Nothing was done here.")
	case errors.Is(err, ErrUnavailable):
		h.failed(ctx, err)
		return problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "The database can't do that at the moment.")
	case errors.Is(err, ErrInDoubt):
		h.failed(ctx, err)
		p := problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable, "The database was lost in the middle of the change, which may have been made. Look before you try again.")
		p.Retryable = false // for all we know it was carried out
		return p
	}
	return err
}

// failed logs an error the client is not told.
func (h handlers) failed(ctx context.Context, err error) {
	level := slog.LevelError
	if errors.Is(ctx.Err(), context.Canceled) {
		level = slog.LevelDebug // the client has gone, nothing has failed
	}
	h.log.Log(ctx, level, "request failed", "error", err)
}
