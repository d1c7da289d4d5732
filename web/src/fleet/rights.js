// What the signed-in role may do. Until the role is read, every command is shown: the server decides.
let role = null;

export function setRole(name) {
  role = name;
}

export const mayCommand = () => role !== "viewer";
