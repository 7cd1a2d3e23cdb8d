import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "xformer.mobile.demo"
    compileSdk = libs.versions.compile.sdk.get().toInt()
    defaultConfig {
        applicationId = "xformer.mobile.demo"
        minSdk = libs.versions.min.sdk.get().toInt()
        targetSdk = libs.versions.target.sdk.get().toInt()
        versionCode = 1
        versionName = "0.1.0"
        // In the test APK that device farms ask for beside the app: docs/android.md.
        testInstrumentationRunner = "xformer.mobile.demo.FarmInstrumentation"
    }
    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
        }
    }
    androidResources {
        // Stored as they are, so that they are copied and not unpacked.
        noCompress += listOf("onnx", "ort", "tflite")
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    testOptions {
        unitTests.all {
            it.useJUnitPlatform()
            // `make test-android` exports them.
            it.systemProperty("xformer.bundles", rootProject.file("../build/apps/bundles").path)
        }
    }
}

// Warnings are errors in Maven's build, against one known framework; a newer SDK may deprecate something.
kotlin { compilerOptions { jvmTarget = JvmTarget.JVM_17 } }

dependencies {
    implementation(project(":runtime"))
    testImplementation(libs.coroutines.test)
    testImplementation(libs.junit)
    testImplementation(libs.kotlin.test)
    testImplementation(libs.serialization.json)
    testRuntimeOnly(libs.junit.launcher)
}
