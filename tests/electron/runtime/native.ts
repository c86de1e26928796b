/** What Electron asks of the system: kept here, so that a test can look at it and press it. */
import { EventEmitter } from "node:events";

interface ItemOptions {
  readonly id?: string;
  readonly label?: string;
  readonly role?: string;
  readonly type?: string;
  readonly accelerator?: string;
  readonly enabled?: boolean;
  readonly visible?: boolean;
  readonly checked?: boolean;
  readonly click?: (item: MenuItem, window: unknown, event: object) => void;
  readonly submenu?: readonly ItemOptions[] | Menu;
}

export class MenuItem {
  readonly id: string;
  readonly label: string;
  readonly role: string | undefined;
  readonly type: string;
  readonly accelerator: string | undefined;
  readonly submenu: Menu | undefined;
  readonly #click: ItemOptions["click"];
  enabled: boolean;
  visible: boolean;
  checked: boolean;

  constructor({
    id = "",
    label,
    role,
    type,
    accelerator,
    enabled,
    visible,
    checked,
    click,
    submenu,
  }: ItemOptions) {
    this.id = id;
    this.label = label ?? role ?? "";
    this.role = role;
    this.type = type ?? (submenu ? "submenu" : "normal");
    this.accelerator = accelerator;
    this.enabled = enabled ?? true;
    this.visible = visible ?? true;
    this.checked = checked ?? false;
    this.#click = click;
    this.submenu =
      submenu === undefined ? undefined : submenu instanceof Menu ? submenu : Menu.buildFromTemplate(submenu);
  }
  click(event: object = {}, window: unknown = null): void {
    this.#click?.(this, window, event);
  }
}

let applicationMenu: Menu | null = null;

export class Menu extends EventEmitter {
  readonly items: MenuItem[] = [];
  /** The menus that a person was shown at the pointer, newest last. */
  static readonly popups: Menu[] = [];

  static buildFromTemplate(template: readonly ItemOptions[]): Menu {
    const menu = new Menu();
    for (const options of template) {
      if (options.label === undefined && !options.role && options.type !== "separator")
        throw new TypeError("Invalid template for MenuItem: must have either label, role or type");
      menu.items.push(new MenuItem(options));
    }
    return menu;
  }
  static setApplicationMenu(menu: Menu | null): void {
    applicationMenu = menu;
  }
  static getApplicationMenu(): Menu | null {
    return applicationMenu;
  }
  append(item: MenuItem): void {
    this.items.push(item);
  }
  getMenuItemById(id: string): MenuItem | null {
    for (const item of this.items) {
      const found = item.id === id ? item : (item.submenu?.getMenuItemById(id) ?? null);
      if (found) return found;
    }
    return null;
  }
  popup(): void {
    Menu.popups.push(this);
    this.emit("menu-will-show");
  }
  closePopup(): void {}
}

export class Notification extends EventEmitter {
  static readonly shown: Notification[] = [];
  static isSupported(): boolean {
    return true;
  }
  readonly title: string;
  readonly body: string;
  constructor({ title = "", body = "" }: { title?: string; body?: string } = {}) {
    super();
    this.title = title;
    this.body = body;
  }
  show(): void {
    Notification.shown.push(this);
    this.emit("show", {});
  }
  close(): void {
    this.emit("close", {});
  }
}

export const dialog = {
  shown: [] as unknown[],
  showErrorBox(title: string, content: string): void {
    dialog.shown.push({ title, content });
    process.stderr.write(`${title}\n${content}\n`);
  },
  async showMessageBox(...args: unknown[]): Promise<{ response: number; checkboxChecked: boolean }> {
    dialog.shown.push(args.at(-1));
    return { response: 0, checkboxChecked: false };
  },
  showMessageBoxSync(...args: unknown[]): number {
    dialog.shown.push(args.at(-1));
    return 0;
  },
};

export const shell = {
  opened: [] as string[],
  async openExternal(url: string): Promise<void> {
    shell.opened.push(url);
  },
  async openPath(path: string): Promise<string> {
    shell.opened.push(path);
    return "";
  },
  showItemInFolder(path: string): void {
    shell.opened.push(path);
  },
  beep(): void {},
};

let clipboardText = "";
export const clipboard = {
  writeText(text: string): void {
    clipboardText = text;
  },
  readText: (): string => clipboardText,
};

export const nativeTheme = Object.assign(new EventEmitter(), {
  shouldUseDarkColors: false,
  themeSource: "system",
});
export const powerMonitor = new EventEmitter();

const display = {
  id: 1,
  scaleFactor: 1,
  bounds: { x: 0, y: 0, width: 1920, height: 1080 },
  workArea: { x: 0, y: 0, width: 1920, height: 1050 },
};
export const screen = Object.assign(new EventEmitter(), {
  getPrimaryDisplay: () => display,
  getAllDisplays: () => [display],
  getDisplayMatching: () => display,
});

/** No keychain is behind it: what it hides, it hides from nobody. */
export const safeStorage = {
  isEncryptionAvailable: (): boolean => false,
  encryptString(): Buffer {
    throw new Error("Error while encrypting the text provided to safeStorage.encryptString.");
  },
  decryptString(): string {
    throw new Error("Error while decrypting the ciphertext provided to safeStorage.decryptString.");
  },
};

export const crashReporter = {
  started: null as object | null,
  start: (options: object): void => void (crashReporter.started = options),
};
